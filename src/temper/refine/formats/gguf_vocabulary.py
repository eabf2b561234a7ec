"""A byte-level BPE tokenizer as GGUF's metadata. `models/gguf_tokenizer` is the reader, and knows the families."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from temper.errors import Invalid
from temper.models.gguf_tokenizer import CONTROL, NORMAL, STYLES, UNUSED, USER_DEFINED, Style
from temper.models.tokenizer import Tokenizer
from temper.models.weights.gguf_writer import Value


def vocabulary(tokenizer: Tokenizer) -> dict[str, Value]:
    """Tokens, merges, special ids, and the word for how text is cut.

    Raises:
        Invalid: it is no byte-level BPE, or cuts text in a way that GGUF has no word for.
    """
    raw: dict[str, Any] = json.loads(tokenizer.to_json())
    model = raw["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _refusal(f"be byte-level BPE, but is {model.get('type')}")
    added = {entry["id"]: entry for entry in raw["added_tokens"]}
    tokens = [f"[PAD{number}]" for number in range(tokenizer.vocab_size)]
    kinds = np.full(tokenizer.vocab_size, UNUSED, np.int32)
    for text, number in model["vocab"].items():
        tokens[number], kinds[number] = text, NORMAL
    for number, entry in added.items():
        if number < tokenizer.vocab_size:
            tokens[number], kinds[number] = entry["content"], CONTROL if entry["special"] else USER_DEFINED
    special = tokenizer.special
    begins = special.bos is not None and tokenizer.encode("a")[:1] == [special.bos]
    found: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _word(raw),
        "tokenizer.ggml.tokens": tuple(tokens),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": tuple(one if isinstance(one, str) else " ".join(one) for one in model["merges"]),
        "tokenizer.ggml.add_bos_token": begins,
    }
    named = {"bos": special.bos, "eos": next(iter(special.eos), None), "padding": special.pad}
    return found | {f"tokenizer.ggml.{name}_token_id": i for name, i in named.items() if i is not None}


def _word(raw: dict[str, Any]) -> str:
    """The name of the family that cuts text like this."""
    normalizer = (raw.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC"):  # composing characters is left to who reads the file: llama.cpp never does it
        raise _refusal(f"take text as it is, but normalizes it by {normalizer}")
    mine = (_cuts(raw.get("pre_tokenizer")), bool(raw["model"].get("ignore_merges")))
    for word, style in STYLES.items():
        if mine == _described(style):
            return "gpt-2" if word == "default" else word
    raise _refusal(f"cut text as one of {', '.join(STYLES)} does, but cuts by {str(mine[0])[:120]}")


def _described(style: Style) -> tuple[list[Any], bool]:
    cuts: list[Any] = [("Split", {"Regex": pattern}, "Isolated", False) for pattern in style.splits]
    if style.digits:
        cuts.append(("Digits", True))
    return [*cuts, ("ByteLevel", False, style.gpt2_regex)], style.ignore_merges


def _cuts(step: Any) -> list[Any]:
    """The steps of a pre-tokenizer, each with what matters of it."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [cut for inner in step["pretokenizers"] for cut in _cuts(inner)]
    if step["type"] == "Split":
        return [("Split", step["pattern"], step["behavior"], step["invert"])]
    if step["type"] == "Digits":
        return [("Digits", step["individual_digits"])]
    if step["type"] == "ByteLevel":
        return [("ByteLevel", step["add_prefix_space"], step["use_regex"])]
    return [(step["type"],)]


def _refusal(rule: str) -> Invalid:
    return Invalid(f"a tokenizer in a GGUF file must {rule}", param="model", hint="serve the folder instead")
