"""The fake engine's tokenizer and its made-up probabilities.

A token is up to six bytes of UTF-8: a word or a part of one with the blank before it. Its id is those
bytes after a leading 1, read as a number, so every text has ids, every id has its text, and no table is
needed. Long pieces and emoji fall apart in the middle of a character, as they do with real tokenizers.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from zlib import crc32

from temper.errors import Invalid
from temper.types import Delta, Message, TokenLogprob

END_OF_TEXT = 2
"""The id that ends a text."""
SPECIAL = {b"<think>": 3, b"</think>": 4}
"""Tokens longer than six bytes, with ids of their own; no other piece of text has an id below 256."""
_SPECIAL_BYTES = {number: token for token, number in SPECIAL.items()}

MAX_TOKEN_BYTES = 6

_WORD = re.compile(r" ?[^\s]+|\s")


def split(text: str) -> list[bytes]:
    """The tokens of a text."""
    return [
        raw[at : at + MAX_TOKEN_BYTES]
        for word in _WORD.findall(text)
        if (raw := word.encode())
        for at in range(0, len(raw), MAX_TOKEN_BYTES)
    ]


def token_id(token: bytes) -> int:
    """The id of a token."""
    if not token:
        return END_OF_TEXT
    return SPECIAL.get(token) or int.from_bytes(b"\x01" + token)


def token_bytes(number: int) -> bytes:
    """The bytes behind an id.

    Raises:
        Invalid: no token has this id.
    """
    if number == END_OF_TEXT:
        return b""
    if number in _SPECIAL_BYTES:
        return _SPECIAL_BYTES[number]
    size = (number.bit_length() + 7) // 8
    raw = number.to_bytes(size) if number >= 256 else b""
    if not raw or raw[0] != 1:
        raise Invalid(f"no token has the id {number}", param="prompt", hint="ids come from /tokenize")
    return raw[1:]


def text_of(ids: Iterable[int]) -> str:
    """The text of token ids; bytes that are no whole character show as U+FFFD."""
    return b"".join(map(token_bytes, ids)).decode(errors="replace")


class Decoder:
    """Token ids to text, piece by piece; bytes that are no whole character yet are held back."""

    def __init__(self) -> None:
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Sequence[int]) -> str:
        """The text that these tokens complete."""
        return self._bytes.decode(b"".join(map(token_bytes, ids)))

    def flush(self) -> str:
        """What was still held."""
        return self._bytes.decode(b"", True)


def conversation(messages: Iterable[Message]) -> str:
    """A conversation as one text."""
    return "".join(f"{m.role}: {m.content or ''}\n" for m in messages) + "assistant:"


def skip_to(tag: str, pieces: Iterator[bytes]) -> None:
    """Leave out pieces up to the one that completes `tag`, or all where none does."""
    said = b""
    for piece in pieces:
        said += piece
        if tag.encode() in said:
            return


def logprob_of(token: bytes, position: int, num_top: int) -> TokenLogprob:
    """A probability made up from the token and its place: always the same, and a proper distribution.

    The chosen token has 0.5 to 0.9 of the mass, each alternative half of what is left.
    """
    chosen = 0.5 + 0.4 * (crc32(token + position.to_bytes(4, "little")) % 1000) / 1000
    entry = _entry(token, math.log(chosen))
    top, left = [entry], 1.0 - chosen
    for rank in range(1, num_top):
        left /= 2
        top.append(_entry(f"~{rank}".encode(), math.log(left)))
    return TokenLogprob(entry.token_id, entry.token, entry.raw, entry.logprob, tuple(top[:num_top]))


def echo(prompt: Sequence[int], index: int, num_top: int | None) -> Delta:
    """The prompt said again, with log-probabilities where `num_top` is set; nothing predicts its first token."""
    entries = None
    if num_top is not None:
        entries = tuple(logprob_of(token_bytes(id), i, num_top) for i, id in enumerate(prompt))
        entries = (replace(entries[0], logprob=None, top=()), *entries[1:]) if entries else ()
    return Delta(index, text_of(prompt), tuple(prompt), entries, "prompt")


def _entry(token: bytes, logprob: float) -> TokenLogprob:
    return TokenLogprob(token_id(token), token.decode(errors="replace"), token, logprob)
