"""GGUF tokenizers against a BPE written by hand and against transformers; and what is refused."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex

from temper.errors import CheckpointError, MalformedFile
from temper.models.gguf_tokenizer import STYLES, tokenizer_from_gguf
from temper.models.tokenizer import Tokenizer
from temper.models.weights.gguf import read_metadata
from tests.tiny_models import write_tiny_gguf

pytest.importorskip("regex", reason="the BPE by hand matches with the regex package")
from tests.models.bpe_by_hand import BpeByHand

assigned = st.characters(exclude_categories=("Cs", "Cn", "Co"))
random_texts = st.one_of(
    st.text(assigned, max_size=80),
    st.text(st.sampled_from("ab '\n\r\t 09.,!<>|_ée你😀"), max_size=60),
    st.binary(max_size=80).map(lambda raw: raw.decode("utf-8", "replace")),
    st.binary(max_size=80).map(lambda raw: raw.decode("latin-1")),
)
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="session")
def smollm_metadata(default_checkpoint: Any) -> Mapping[str, Any]:
    return read_metadata(default_checkpoint.fetched.path)


@cache
def variant(metadata_id: int, pre: str) -> tuple[Tokenizer, BpeByHand]:
    """Our tokenizer and the one by hand, over one vocabulary cut in the way of `pre`."""
    metadata = {**_KEPT[metadata_id], "tokenizer.ggml.pre": pre, "tokenizer.ggml.add_bos_token": False}
    return tokenizer_from_gguf(metadata), BpeByHand(metadata)


_KEPT: dict[int, Mapping[str, Any]] = {}


def both(metadata: Mapping[str, Any], pre: str) -> tuple[Tokenizer, BpeByHand]:
    _KEPT[id(metadata)] = metadata
    return variant(id(metadata), pre)


@pytest.mark.parametrize("pre", ["smollm", "gpt-2", "llama-bpe", "qwen2"])
def test_every_cut_over_the_default_vocabulary(smollm_metadata: Mapping[str, Any], texts: list[str], pre: str) -> None:
    ours, by_hand = both(smollm_metadata, pre)
    for text in texts:
        assert ours.encode(text) == by_hand.encode(text), text


def test_r1_vocabulary(r1_metadata: Mapping[str, Any], texts: list[str]) -> None:
    ours, by_hand = both(r1_metadata, "deepseek-r1-qwen")
    for text in texts:
        assert ours.encode(text) == by_hand.encode(text), text


@SETTINGS
@given(text=random_texts)
def test_random_text_over_the_default_vocabulary(smollm_metadata: Mapping[str, Any], text: str) -> None:
    ours, by_hand = both(smollm_metadata, "smollm")
    assert ours.encode(text) == by_hand.encode(text)


@SETTINGS
@given(text=random_texts)
def test_random_text_over_the_r1_vocabulary(r1_metadata: Mapping[str, Any], text: str) -> None:
    ours, by_hand = both(r1_metadata, "deepseek-r1-qwen")
    ids = ours.encode(text)
    assert ids == by_hand.encode(text)
    assert ours.decode(ids) == unicodedata.normalize("NFC", text)


def test_r1_as_transformers_has_qwen2(r1_metadata: Mapping[str, Any], texts: list[str]) -> None:
    qwen2 = pytest.importorskip("transformers").Qwen2Tokenizer
    tokens = r1_metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in r1_metadata["tokenizer.ggml.merges"]]
    reference = qwen2(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    ours, _ = both(r1_metadata, "deepseek-r1-qwen")
    for text in texts:
        expected = reference(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text, add_special_tokens=False) == expected, text


def test_r1_special_tokens(r1_tokenizer: Tokenizer) -> None:
    assert r1_tokenizer.token_text(r1_tokenizer.bos_id or 0) == "<｜begin▁of▁sentence｜>"
    assert [r1_tokenizer.token_text(i) for i in r1_tokenizer.eos_ids] == ["<｜end▁of▁sentence｜>"]
    assert r1_tokenizer.think_ids == (151648, 151649)
    assert r1_tokenizer.encode("hi")[0] == r1_tokenizer.bos_id
    assert r1_tokenizer.encode("hi", add_special_tokens=False)[0] != r1_tokenizer.bos_id
    turn = r1_tokenizer.encode("<｜User｜>hi<｜Assistant｜><think>\n</think>", add_special_tokens=False)
    assert [r1_tokenizer.token_text(i) for i in turn] == [
        "<｜User｜>", "hi", "<｜Assistant｜>", "<think>", "\n", "</think>",
    ]  # fmt: skip
    assert r1_tokenizer.decode(turn, skip_special=True) == "hi<think>\n</think>"
    plain = r1_tokenizer.encode("<｜User｜>", add_special_tokens=False, allow_special=False)
    assert len(plain) > 1
    assert r1_tokenizer.decode(plain) == "<｜User｜>"


def tiny(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {**read_metadata(write_tiny_gguf(tmp_path / "tiny.gguf")), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.model": "llama"}, "must be byte-level BPE"),
        ({"tokenizer.ggml.pre": "viking"}, r"'viking' is not supported; supported are"),
        ({"tokenizer.ggml.pre": 7}, "pre-tokenizer 7 is not supported"),
        ({"tokenizer.ggml.merges": ("zz yy",)}, "must join entries of the vocabulary"),
        ({"tokenizer.ggml.merges": ("nospace",)}, "must join entries of the vocabulary"),
        ({"tokenizer.ggml.tokens": 5}, "must be a list of texts"),
        ({"tokenizer.ggml.tokens": np.arange(4)}, "must be a list of texts"),
        ({"tokenizer.ggml.token_type": np.ones(3, np.int32)}, "one entry per token"),
        ({"tokenizer.ggml.token_type": "abc"}, "one entry per token"),
        ({"tokenizer.ggml.eos_token_id": 99999}, "must be a token id below 320"),
        ({"tokenizer.ggml.bos_token_id": "x"}, "must be a token id below 320"),
    ],
)
def test_broken_metadata_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        tokenizer_from_gguf(tiny(tmp_path, **changes))


def test_more_tokens_than_rows(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match=r"as many entries as the embedding has rows \(300\), got 320"):
        tokenizer_from_gguf(tiny(tmp_path), 300)


def test_fewer_tokens_than_rows_leave_ids_without_text(tmp_path: Path) -> None:
    tokenizer = tokenizer_from_gguf(tiny(tmp_path), 330)
    assert tokenizer.vocab_size == 330
    assert tokenizer.token_bytes(329) == b""
    assert tokenizer.decode([329, *tokenizer.encode("and")]) == "and"


@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, True), (True, True)])
def test_beginning_and_end_tokens(tmp_path: Path, bos: bool, eos: bool) -> None:
    flags = {"tokenizer.ggml.add_bos_token": bos, "tokenizer.ggml.add_eos_token": eos}
    tokenizer = tokenizer_from_gguf(tiny(tmp_path, **flags))
    bare = tokenizer.encode("the end", add_special_tokens=False)
    expected = [tokenizer.bos_id] * bos + bare + [tokenizer.eos_ids[0]] * eos
    assert tokenizer.encode("the end") == expected


@pytest.mark.parametrize("pattern", sorted({pattern for style in STYLES.values() for pattern in style.splits}))
def test_every_pattern_compiles_and_survives_the_normalizing_of_its_file(pattern: str):
    Regex(pattern)
    assert unicodedata.normalize("NFC", pattern) == pattern
