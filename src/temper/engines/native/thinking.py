"""Splitting a model's text into thinking and answer, whatever pieces it arrives in.

A pure class over text. It knows the two tags and whether the prompt already opened the thinking (as
R1's template does); tokens, budgets and requests are `output.py`'s. The rules, for the whole text:

- Thinking is open from the start when the prompt opened it, or when the text begins (after blanks)
  with the open tag. More open tags at the very beginning of the thinking are dropped.
- It ends at the first close tag; never closed, everything is thinking. Blanks around it are stripped.
- The answer follows without its leading blanks. Close tags in the answer are stray ones: dropped,
  so that no tag ever leaks to a reader.
"""

from __future__ import annotations

from typing import Literal

Side = Literal["reasoning", "answer"]
Pieces = list[tuple[Side, str]]


def held_suffix(text: str, marks: tuple[str, ...]) -> int:
    """Length of the longest end of `text` that is the beginning, but not the whole, of one of `marks`."""
    longest = 0
    for mark in marks:
        for length in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:length]):
                longest = length
                break
    return longest


class ThinkSplitter:
    """Feed text to `push` as it comes, end with `flush`; both return decided pieces in order."""

    def __init__(self, open_tag: str, close_tag: str, *, opened: bool) -> None:
        self._open = open_tag
        self._close = close_tag
        self._buffer = ""
        self._undecided = not opened
        """Nothing but blanks so far, and the open tag may still come."""
        self._fresh = True
        """The current side has no text yet: leading blanks are stripped."""
        self.side: Side = "reasoning" if opened else "answer"
        self.num_closed = 0

    @property
    def num_held(self) -> int:
        """Characters taken in and not yet decided."""
        return len(self._buffer)

    def push(self, text: str) -> Pieces:
        """Take in `text`; return what is decided now."""
        self._buffer += text
        pieces: Pieces = []
        if self._undecided and not self._decide(pieces):
            return pieces
        if self.side == "reasoning":
            self._think(pieces)
        if self.side == "answer":
            self._answer(pieces)
        return pieces

    def flush(self) -> Pieces:
        """The text has ended: return what was still held."""
        rest, self._buffer = self._buffer, ""
        pieces: Pieces = []
        if self._undecided:
            self._undecided = self._fresh = False
        if self.side == "reasoning":
            rest = rest.rstrip()
        self._emit(pieces, rest)
        return pieces

    def _decide(self, pieces: Pieces) -> bool:
        begin = self._buffer.lstrip()
        if begin.startswith(self._open):
            self.side = "reasoning"
            self._buffer = begin[len(self._open) :]
        elif self._open.startswith(begin):
            return False
        else:
            self._fresh = False  # an answer without thinking keeps its blanks
        self._undecided = False
        return True

    def _think(self, pieces: Pieces) -> None:
        if self._fresh:
            begin = self._buffer.lstrip()
            while begin.startswith(self._open):
                begin = begin[len(self._open) :].lstrip()
            self._buffer = begin
            if self._open.startswith(begin):
                return
        before, tag, after = self._buffer.partition(self._close)
        if tag:
            self._emit(pieces, before.rstrip())
            self._buffer = after
            self.side = "answer"
            self._fresh = True
            self.num_closed += 1
            return
        decided = self._buffer[: len(self._buffer) - held_suffix(self._buffer, (self._close,))].rstrip()
        self._buffer = self._buffer[len(decided) :]
        self._emit(pieces, decided)

    def _answer(self, pieces: Pieces) -> None:
        *parts, rest = self._buffer.split(self._close)
        self.num_closed += len(parts)
        keep = len(rest) - held_suffix(rest, (self._close,))
        self._buffer = rest[keep:]
        self._emit(pieces, "".join(parts) + rest[:keep])

    def _emit(self, pieces: Pieces, text: str) -> None:
        if self._fresh:
            text = text.lstrip()
        if text:
            self._fresh = False
            pieces.append((self.side, text))
