"""Stop strings: held back until decided, never shown.

A pure class over text. The match that completes first wins; of two that complete at the same
character, the longer one. So the result does not depend on the pieces in which the text arrives.
"""

from __future__ import annotations

from temper.engines.native.thinking import held_suffix


class StopMatcher:
    """Feed text to `push`; `matched` is the stop string once one is complete."""

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = strings
        self._buffer = ""
        self.matched: str | None = None

    @property
    def num_held(self) -> int:
        """Characters taken in and not yet decided."""
        return len(self._buffer)

    def push(self, text: str) -> str:
        """Take in `text`; return what surely stands before any stop string. Nothing more once matched."""
        if self.matched is not None:
            return ""
        if not self._strings:
            return text
        buffer = self._buffer + text
        ends = [(at + len(s), at, s) for s in self._strings if (at := buffer.find(s)) >= 0]
        if ends:
            _, at, self.matched = min(ends)
            self._buffer = ""
            return buffer[:at]
        keep = len(buffer) - held_suffix(buffer, self._strings)
        self._buffer = buffer[keep:]
        return buffer[:keep]

    def flush(self) -> str:
        """The text has ended: return what was held."""
        rest, self._buffer = self._buffer, ""
        return rest
