"""Text to token ids and back, for one checkpoint.

Encoding is done by the Rust `tokenizers` library; decoding works on the bytes of single tokens, so that
a stream can hold back an incomplete character. It does not know chat templates.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import tokenizers

from temper.errors import Invalid

ByteStyle = Literal["byte_level", "byte_fallback"]
"""How vocabulary entries spell bytes: GPT-2's printable stand-ins, or `▁` and `<0xNN>`."""

THINK_OPEN: Final = "<think>"
THINK_CLOSE: Final = "</think>"


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Token ids with a meaning of their own."""

    bos: int | None = None
    eos: tuple[int, ...] = ()
    """Every id that ends an answer, the main one first."""
    pad: int | None = None


class Tokenizer:
    """The tokenizer of a checkpoint. Immutable and safe to share between threads."""

    def __init__(self, inner: tokenizers.Tokenizer, special: SpecialIds, style: ByteStyle, vocab_size: int) -> None:
        """`vocab_size` is the width of the model's logits; it may exceed the tokens that have a text."""
        self._inner = inner
        self._style: ByteStyle = style
        self._added = {i: token for i, token in inner.get_added_tokens_decoder().items() if i < vocab_size}
        self._bytes: dict[int, bytes] = {}
        self.special = special
        self.vocab_size = vocab_size

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, where the model has one."""
        return self.special.bos

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every token that ends an answer, the main one first."""
        return self.special.eos

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Control tokens, which are no part of a text."""
        return frozenset(i for i, token in self._added.items() if token.special)

    @cached_property
    def think_ids(self) -> tuple[int, int] | None:
        """Ids of `<think>` and `</think>` where each is a single token."""
        opening, closing = self.token_id(THINK_OPEN), self.token_id(THINK_CLOSE)
        return None if opening is None or closing is None else (opening, closing)

    @cached_property
    def max_token_bytes(self) -> int:
        """Length of the longest token in bytes."""
        return max(len(self.token_bytes(i)) for i in range(self.vocab_size))

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        """Token ids of `text`.

        `add_special_tokens` puts the beginning-of-text token in front where the model wants one.
        With `allow_special` False, the spelling of a control token in `text` is plain text.

        Raises:
            Invalid: `text` holds a lone surrogate and so is no Unicode text.
        """
        inner = self._inner if allow_special else self._plain
        try:
            return list(inner.encode(text, add_special_tokens=add_special_tokens).ids)
        except (UnicodeEncodeError, TypeError):
            raise Invalid(
                "text must be valid Unicode, got a lone surrogate", param="prompt", hint="send well-formed UTF-8"
            ) from None

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of `ids`; bytes that are no character become U+FFFD."""
        hidden = self.special_ids if skip_special else frozenset()
        text = b"".join(self.token_bytes(i) for i in ids if i not in hidden).decode("utf-8", "replace")
        return text.removeprefix(" ") if self._style == "byte_fallback" else text

    def token_id(self, text: str) -> int | None:
        """The id of the vocabulary entry spelled `text`, if there is one."""
        found = self._inner.token_to_id(text)
        return found if found is not None and found < self.vocab_size else None

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for; empty for ids that the model has and the vocabulary has not.

        Raises:
            Invalid: the id is outside the vocabulary.
        """
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[token_id] = self._spell(token_id)
        return found

    def token_text(self, token_id: int) -> str:
        """The text of one token; bytes that are no whole character become U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def to_json(self) -> str:
        """The tokenizer in Hugging Face's tokenizer.json format."""
        return str(self._inner.to_str())

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """A twin that reads control tokens as text; made when first needed."""
        twin = tokenizers.Tokenizer.from_str(self._inner.to_str())
        twin.encode_special_tokens = True
        return twin

    def _spell(self, token_id: int) -> bytes:
        if not 0 <= token_id < self.vocab_size:
            raise Invalid(
                f"token ids must lie between 0 and {self.vocab_size - 1}, got {token_id}",
                param="prompt",
                hint="use this model's own token ids",
            )
        if token_id in self._added:
            return str(self._added[token_id].content).encode()
        token = self._inner.id_to_token(token_id)
        if token is None:
            return b""
        if self._style == "byte_level":
            try:
                return bytes(map(_BYTE_OF.__getitem__, token))
            except KeyError:
                return token.encode()
        if _BYTE_TOKEN.fullmatch(token):
            return bytes((int(token[3:5], 16),))
        return token.replace("▁", " ").encode()


class StreamDecoder:
    """Turns tokens into text as they come. Holds back the bytes of a character until it is complete."""

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._hidden = tokenizer.special_ids if skip_special else frozenset()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Sequence[int]) -> str:
        """The text that became certain with `ids`."""
        spell = self._tokenizer.token_bytes
        return self._utf8.decode(b"".join(spell(i) for i in ids if i not in self._hidden))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole, else nothing."""
        return self._utf8.decode(b"", final=True)


def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {**{byte: chr(byte) for byte in shown}, **{byte: chr(256 + i) for i, byte in enumerate(hidden)}}


_BYTE_OF: Final = {char: byte for byte, char in byte_alphabet().items()}
_BYTE_TOKEN: Final = re.compile(r"<0x[0-9A-Fa-f]{2}>")
