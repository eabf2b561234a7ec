"""Log-probabilities in the two shapes that OpenAI gave them: chat's and legacy completions'."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any

from temper.types import TokenLogprob

LOWEST = -9999.0
"""JSON has no minus infinity; OpenAI writes this number instead."""


def _value(token: TokenLogprob) -> float:
    return LOWEST if token.logprob is None else max(token.logprob, LOWEST)


def chat_entries(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Entries of a chat choice's `logprobs`, each with its alternatives."""
    return [_chat_entry(token) | {"top_logprobs": [_chat_entry(other) for other in token.top]} for token in tokens]


def _chat_entry(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": _value(token), "bytes": list(token.raw)}


class LegacyLogprobs:
    """Legacy `logprobs` of one choice, growing with its tokens.

    `text_offset` counts characters from the start of the choice's text, an echoed prompt included.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._offset = 0

    def shape(self, tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
        """The object for these tokens, which follow those given before.

        The first prompt token has None: nothing predicts it. The chosen token is always among
        `top_logprobs`, which so has one entry more than was asked for when it is not one of the likeliest.
        """
        found: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in tokens:
            found["tokens"].append(_legacy_text(token))
            found["text_offset"].append(self._offset)
            self._offset += len(self._decoder.decode(token.raw))
            if token.logprob is None:
                found["token_logprobs"].append(None)
                found["top_logprobs"].append(None)
                continue
            found["token_logprobs"].append(_value(token))
            top: dict[str, float] = {}
            for other in (*token.top, token):
                text = _legacy_text(other)
                top[text] = max(_value(other), top.get(text, LOWEST))
            found["top_logprobs"].append(top)
        return found


def _legacy_text(token: TokenLogprob) -> str:
    """The token's text; bytes that are no whole characters are written out, as OpenAI does."""
    try:
        return token.raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.raw)


def extend(grown: dict[str, list[Any]] | None, piece: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Append the lists of `piece` to those of `grown`."""
    if grown is None:
        return piece
    for name, values in piece.items():
        grown[name].extend(values)
    return grown
