"""A tokenizer from the vocabulary and merges inside a GGUF file.

GGUF names the way text is cut before merging by one word (`tokenizer.ggml.pre`); the table below spells
each word out as the Hugging Face tokenizers of these models do. Only byte-level BPE is known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from temper.errors import CheckpointError, MalformedFile
from temper.models.tokenizer import SpecialIds, Tokenizer

NORMAL: Final = 1
CONTROL: Final = 3
USER_DEFINED: Final = 4
UNUSED: Final = 5

_QWEN2: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3: Final = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_DEEPSEEK_LETTERS: Final = (
    r"\s?["
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}"
    r"\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}"
    r"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}"
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}"
    r"\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}"
    r"\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}"
    r"\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}"
    r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}"
    r"\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}"
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}"
    r"\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}"
    r"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}"
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}"
    r"]+"
)
"""By code points: written as letters, normalizing the file would make other letters of some."""
_CJK: Final = "[一-龥ࠀ-一가-퟿]+"


@dataclass(frozen=True, slots=True)
class Style:
    """How one family of models cuts text."""

    splits: tuple[str, ...] = ()
    """Patterns applied one after the other, each match a piece of its own."""
    digits: bool = False
    """Every digit is a piece of its own."""
    gpt2_regex: bool = False
    nfc: bool = False
    ignore_merges: bool = False
    """A whole piece that is in the vocabulary is taken as it is."""
    add_bos: bool = False
    """Unless the file says otherwise."""


_QWEN2_STYLE: Final = Style(splits=(_QWEN2,), nfc=True)
_GPT2_STYLE: Final = Style(gpt2_regex=True)
STYLES: Final[dict[str, Style]] = {
    "default": _GPT2_STYLE,
    "gpt-2": _GPT2_STYLE,
    "smollm": Style(digits=True, gpt2_regex=True),
    "qwen2": _QWEN2_STYLE,
    "deepseek-r1-qwen": _QWEN2_STYLE,
    "llama-bpe": Style(splits=(_LLAMA3,), ignore_merges=True, add_bos=True),
    "llama3": Style(splits=(_LLAMA3,), ignore_merges=True, add_bos=True),
    "llama-v3": Style(splits=(_LLAMA3,), ignore_merges=True, add_bos=True),
    "deepseek-llm": Style(
        splits=("[\r\n]", _DEEPSEEK_LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", _CJK),
        digits=True,
        add_bos=True,
    ),
    "deepseek-coder": Style(splits=("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK), digits=True, add_bos=True),
}
_END_TEXTS: Final = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<｜end▁of▁sentence｜>")
"""Control tokens that end an answer wherever they exist, besides those that the file names."""


def tokenizer_from_gguf(metadata: Mapping[str, Any], vocab_size: int | None = None) -> Tokenizer:
    """Build the tokenizer that the file's metadata describes.

    `vocab_size` is the width of the model's logits: the number of tokens, or more where rows were padded.

    Raises:
        CheckpointError: the kind of tokenizer is not supported.
        MalformedFile: its parts do not fit together.
    """
    tokens = _texts(metadata, "tokenizer.ggml.tokens")
    if vocab_size is not None and vocab_size < len(tokens):
        raise MalformedFile(
            f"the vocabulary may have as many entries as the embedding has rows ({vocab_size}), got {len(tokens)}",
            hint="the file is damaged",
        )
    inner = _build(metadata, tokens)
    return Tokenizer(inner, _special_ids(inner, metadata, len(tokens)), "byte_level", vocab_size or len(tokens))


def _build(metadata: Mapping[str, Any], tokens: Sequence[str]) -> tokenizers.Tokenizer:
    if (kind := metadata.get("tokenizer.ggml.model")) != "gpt2":
        raise CheckpointError(
            f"the tokenizer inside a GGUF file must be byte-level BPE ('gpt2'), got {kind!r}",
            hint="use the model's safetensors folder, whose tokenizer.json is read whatever its kind",
        )
    pre = metadata.get("tokenizer.ggml.pre", "default")
    style = STYLES.get(pre) if isinstance(pre, str) else None
    if style is None:
        raise CheckpointError(
            f"pre-tokenizer {pre!r} is not supported; supported are {', '.join(sorted(STYLES))}",
            hint="use the model's safetensors folder, whose tokenizer.json is read whatever its kind",
        )
    merges = [merge.partition(" ")[::2] for merge in _texts(metadata, "tokenizer.ggml.merges")]
    vocab = dict(zip(reversed(tokens), reversed(range(len(tokens))), strict=True))  # the first of equals counts
    try:
        inner = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=style.ignore_merges))
    except Exception as error:
        # The library raises bare exceptions for merges that are no pairs or not in the vocabulary.
        raise MalformedFile(
            f"'tokenizer.ggml.merges' must join entries of the vocabulary: {error}", hint="fetch the file again"
        ) from error
    if style.nfc:
        inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = _pre_tokenizer(style)
    inner.decoder = decoders.ByteLevel()
    _add_tokens(inner, metadata, tokens)
    _add_template(inner, metadata, tokens, style)
    return inner


def _pre_tokenizer(style: Style) -> pre_tokenizers.PreTokenizer:
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in style.splits
    ]
    if style.digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=style.gpt2_regex))
    return pre_tokenizers.Sequence(steps)


def _add_tokens(inner: tokenizers.Tokenizer, metadata: Mapping[str, Any], tokens: Sequence[str]) -> None:
    """Control tokens, and tokens that the model's makers added, are found in a text before all else."""
    types = metadata.get("tokenizer.ggml.token_type")
    if types is None:
        return
    if isinstance(types, str) or not hasattr(types, "__len__") or len(types) != len(tokens):
        raise MalformedFile("'tokenizer.ggml.token_type' must have one entry per token", hint="fetch the file again")
    special = np.flatnonzero(np.isin(types, (CONTROL, USER_DEFINED)))
    kinds = [(types[i], tokens[i]) for i in special.tolist()]
    inner.add_special_tokens([AddedToken(t, special=True, normalized=False) for kind, t in kinds if kind == CONTROL])
    inner.add_tokens([AddedToken(t, normalized=False) for kind, t in kinds if kind == USER_DEFINED])


def _add_template(
    inner: tokenizers.Tokenizer, metadata: Mapping[str, Any], tokens: Sequence[str], style: Style
) -> None:
    """Put beginning and end tokens around a text where the file (or its family) wants them."""
    bos = _id(metadata, "tokenizer.ggml.bos_token_id", len(tokens))
    eos = _id(metadata, "tokenizer.ggml.eos_token_id", len(tokens))
    wanted: list[tuple[str, int]] = []
    template = "$A"
    if bos is not None and metadata.get("tokenizer.ggml.add_bos_token", style.add_bos):
        wanted.append(("bos", bos))
        template = "bos " + template
    if eos is not None and metadata.get("tokenizer.ggml.add_eos_token", False):
        wanted.append(("eos", eos))
        template += " eos"
    if wanted:
        inner.post_processor = processors.TemplateProcessing(
            single=template,
            pair="$A $B",
            special_tokens=[{"id": name, "ids": [i], "tokens": [tokens[i]]} for name, i in wanted],
        )


def _special_ids(inner: tokenizers.Tokenizer, metadata: Mapping[str, Any], vocab_size: int) -> SpecialIds:
    control = {token.content: i for i, token in inner.get_added_tokens_decoder().items() if token.special}
    named = [_id(metadata, f"tokenizer.ggml.{key}_token_id", vocab_size) for key in ("eos", "eot", "eom")]
    ends = [*named, *(control.get(text) for text in _END_TEXTS)]
    return SpecialIds(
        bos=_id(metadata, "tokenizer.ggml.bos_token_id", vocab_size),
        eos=tuple(dict.fromkeys(i for i in ends if i is not None)),
        pad=_id(metadata, "tokenizer.ggml.padding_token_id", vocab_size),
    )


def _id(metadata: Mapping[str, Any], key: str, vocab_size: int) -> int | None:
    value = metadata.get(key)
    if value is None or value == 0xFFFFFFFF:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocab_size:
        raise MalformedFile(
            f"'{key}' must be a token id below {vocab_size}, got {value!r}", hint="fetch the file again"
        )
    return value


def _texts(metadata: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = metadata.get(key)
    if not isinstance(value, tuple) or not value:
        raise MalformedFile(f"'{key}' must be a list of texts", hint="the file has no tokenizer: use another")
    return value
