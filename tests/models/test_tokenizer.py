"""Decoding: streams equal the whole, no half characters, every token's bytes."""

from __future__ import annotations

from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from temper.errors import Invalid
from temper.models.checkpoint import Checkpoint
from temper.models.tokenizer import SpecialIds, StreamDecoder, Tokenizer, byte_alphabet
from tests.tiny_models import THINK, tiny_tokenizer, vocabulary

TOKENS = vocabulary()
TINY = Tokenizer(tiny_tokenizer(), SpecialIds(bos=270, eos=(271,)), "byte_level", len(TOKENS))


def stream(tokenizer: Tokenizer, ids: list[int], **options: Any) -> list[str]:
    decoder = StreamDecoder(tokenizer, **options)
    return [*(decoder.push([i]) for i in ids), decoder.flush()]


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_a_stream_gives_the_text_and_no_half_characters(text: str) -> None:
    ids = TINY.encode(text)
    pieces = stream(TINY, ids, skip_special=False)
    assert "".join(pieces) == text
    if "�" not in text:
        assert all("�" not in piece for piece in pieces)
    assert TINY.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, len(TOKENS) - 1), max_size=40))
def test_a_stream_of_any_tokens_is_their_decoding(ids: list[int]) -> None:
    assert "".join(stream(TINY, ids, skip_special=False)) == TINY.decode(ids)
    assert "".join(stream(TINY, ids)) == TINY.decode(ids, skip_special=True)
    assert TINY.decode(ids) == b"".join(map(TINY.token_bytes, ids)).decode("utf-8", "replace")


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 255 + 13), max_size=40))
def test_decoding_is_that_of_the_library(ids: list[int]) -> None:
    assert TINY.decode(ids) == tiny_tokenizer().decode(ids, skip_special_tokens=False)


def test_a_character_over_several_tokens_comes_whole() -> None:
    ids = TINY.encode("🦊é")
    assert len(ids) == 6
    assert stream(TINY, ids) == ["", "", "", "🦊", "", "é", ""]
    assert stream(TINY, ids[:3]) == ["", "", "", "�"]


def test_bytes_and_texts_of_tokens() -> None:
    alphabet = byte_alphabet()
    for byte in range(256):
        token_id = TINY.token_id(alphabet[byte])
        assert token_id is not None
        assert TINY.token_bytes(token_id) == bytes([byte])
    the = TOKENS.index("Ġthe")
    assert TINY.token_bytes(the) == b" the"
    assert TINY.token_text(TINY.encode("é")[0]) == "�"
    assert TINY.max_token_bytes == max(len(b"<|endoftext|>"), len(b"[PAD310]"))


def test_special_tokens() -> None:
    opening, closing = (TOKENS.index(tag) for tag in THINK)
    assert TINY.think_ids == (opening, closing)
    assert TINY.special_ids == {TOKENS.index(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")}
    text = "a<|im_end|><think>b"
    ids = TINY.encode(text)
    assert TOKENS.index("<|im_end|>") in ids
    assert opening in ids
    assert TINY.decode(ids, skip_special=True) == "a<think>b"
    plain = TINY.encode(text, allow_special=False)
    assert TOKENS.index("<|im_end|>") not in plain
    assert TINY.decode(plain) == text


@pytest.mark.parametrize("token_id", [-1, len(TOKENS), 10**12])
def test_ids_outside_the_vocabulary(token_id: int) -> None:
    with pytest.raises(Invalid, match="must lie between 0 and 319"):
        TINY.token_bytes(token_id)


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(Invalid, match="valid Unicode"):
        TINY.encode("a\ud800b")


def test_byte_fallback_vocabularies() -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "▁ab"]
    vocab = {token: i for i, token in enumerate(tokens)}
    inner = tokenizers.Tokenizer(
        models.BPE(vocab, [("▁", "a"), ("▁a", "b")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = Tokenizer(inner, SpecialIds(bos=1, eos=(2,)), "byte_fallback", len(tokens))
    for text in ("ab a é", "ab", "a🦊b a"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text == inner.decode(ids)
    assert "".join(stream(tokenizer, tokenizer.encode("a é")[1:])) == " é"


def test_the_default_model(default_checkpoint: Checkpoint, texts: list[str]) -> None:
    tokenizer = default_checkpoint.tokenizer
    assert tokenizer.vocab_size == 49152
    assert tokenizer.token_text(tokenizer.eos_ids[0]) == "<|im_end|>"
    assert tokenizer.think_ids is None
    for text in texts:
        ids = tokenizer.encode(text)
        if not any(char in text for char in "\x00\x01\x7f\x85\x1c"):  # bytes that its vocabulary lacks
            assert tokenizer.decode(ids) == text
        assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


def test_pre_tokenizer_alphabet_is_ours() -> None:
    assert set(byte_alphabet().values()) == set(pre_tokenizers.ByteLevel.alphabet())
