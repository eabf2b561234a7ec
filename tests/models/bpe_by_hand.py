"""Byte-level BPE written down plainly over the `regex` module: an outside opinion on our tokenizers.

It shares nothing with the Rust library: patterns are matched by another engine, merging is the textbook
loop, and bytes are spelled by the table of OpenAI's GPT-2 code.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import regex

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS: dict[str, tuple[str, ...]] = {
    "gpt-2": (GPT2,),
    "smollm": (r"\p{N}", GPT2),
    "qwen2": (QWEN2,),
    "deepseek-r1-qwen": (QWEN2,),
    "llama-bpe": (LLAMA3,),
}
NORMALIZED = ("qwen2", "deepseek-r1-qwen")
IGNORE_MERGES = ("llama-bpe",)


class BpeByHand:
    """Encodes text with the vocabulary of a GGUF file's metadata."""

    def __init__(self, metadata: Mapping[str, Any], pre: str | None = None) -> None:
        self.pre = pre or metadata["tokenizer.ggml.pre"]
        tokens = metadata["tokenizer.ggml.tokens"]
        self.ids: dict[str, int] = {}
        for i, token in enumerate(tokens):
            self.ids.setdefault(token, i)
        self.ranks = {tuple(m.split(" ")): i for i, m in enumerate(metadata["tokenizer.ggml.merges"])}
        kinds = metadata["tokenizer.ggml.token_type"]
        added = sorted((t for t, kind in zip(tokens, kinds, strict=True) if kind in (3, 4)), key=len, reverse=True)
        self.added = regex.compile("|".join(map(regex.escape, added))) if added else None
        self.patterns = [regex.compile(pattern) for pattern in PATTERNS[self.pre]]
        self.spelling = spelling()
        self.merged = lru_cache(maxsize=None)(self._merged)

    def encode(self, text: str) -> list[int]:
        found: list[int] = []
        at = 0
        for match in self.added.finditer(text) if self.added else ():
            found += self._plain(text[at : match.start()])
            found.append(self.ids[match[0]])
            at = match.end()
        return found + self._plain(text[at:])

    def _plain(self, text: str) -> list[int]:
        if self.pre in NORMALIZED:
            text = unicodedata.normalize("NFC", text)
        pieces = [text]
        for pattern in self.patterns:
            pieces = [cut for piece in pieces for cut in isolated(pattern, piece)]
        words = ("".join(self.spelling[byte] for byte in piece.encode()) for piece in pieces)
        return [self.ids[symbol] for word in words for symbol in self.merged(word)]

    def _merged(self, word: str) -> tuple[str, ...]:
        if self.pre in IGNORE_MERGES and word in self.ids:
            return (word,)
        symbols = [char for char in word if char in self.ids]  # a byte that the vocabulary lacks is lost
        while len(symbols) > 1:
            ranks = [self.ranks.get(pair, 1 << 60) for pair in pairwise(symbols)]
            best = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[best] == 1 << 60:
                break
            symbols[best : best + 2] = [symbols[best] + symbols[best + 1]]
        return tuple(symbols)


def isolated(pattern: regex.Pattern[str], text: str) -> Sequence[str]:
    """Matches and what lies between them, in order."""
    cuts, at = [], 0
    for match in pattern.finditer(text):
        cuts += [text[at : match.start()], match[0]]
        at = match.end()
    return [cut for cut in (*cuts, text[at:]) if cut]


def spelling() -> dict[int, str]:
    """The table of OpenAI's `bytes_to_unicode`."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars, n = shown[:], 0
    for byte in range(256):
        if byte not in shown:
            shown.append(byte)
            chars.append(256 + n)
            n += 1
    return dict(zip(shown, map(chr, chars), strict=True))
