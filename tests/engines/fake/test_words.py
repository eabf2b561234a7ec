"""The fake tokenizer goes there and back on any text, and its probabilities are probabilities."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.engines.fake.words import MAX_TOKEN_BYTES, Decoder, logprob_of, split, text_of, token_bytes, token_id
from temper.errors import Invalid

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_any_text_comes_back(text: str):
    tokens = split(text)
    assert all(0 < len(token) <= MAX_TOKEN_BYTES for token in tokens)
    ids = [token_id(token) for token in tokens]
    assert text_of(ids) == text
    decoder = Decoder()
    assert "".join(decoder.push([id]) for id in ids) + decoder.flush() == text


@given(st.binary(min_size=1, max_size=8))
def test_ids_are_unique(token: bytes):
    assert token_bytes(token_id(token)) == token


@pytest.mark.parametrize("number", [0, 1, 5, 255, 0x0200, 0x7F00])
def test_ids_that_nobody_has(number: int):
    with pytest.raises(Invalid, match=str(number)):
        token_bytes(number)


@given(st.binary(min_size=1, max_size=6), st.integers(0, 10000), st.integers(0, 20))
def test_probabilities(token: bytes, position: int, num_top: int):
    entry = logprob_of(token, position, num_top)
    assert entry == logprob_of(token, position, num_top)
    assert len(entry.top) == num_top
    assert entry.logprob is not None
    if num_top:
        assert entry.top[0].logprob == entry.logprob
        assert sum(math.exp(other.logprob or 0) for other in entry.top) <= 1 + 1e-9
