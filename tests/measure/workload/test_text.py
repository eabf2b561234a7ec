from __future__ import annotations

import pytest

from temper.engines.fake import FakeEngine
from temper.errors import Invalid
from temper.measure.workload.text import NUM_SYMBOLS, WORDS, Wording, shared, unique, wording_for
from temper.profile import schema


def test_words_are_words_and_differ():
    assert len(WORDS) == len(set(WORDS)) == NUM_SYMBOLS == 256
    assert all(word.isascii() and word.isalpha() for word in WORDS)


def test_no_two_prompts_begin_alike():
    heads = [tuple(unique(7, index, 16)[:3]) for index in range(3000)]
    assert len(set(heads)) == 3000
    assert len({head[0] for head in heads[:256]}) == 256  # neighbours differ from the first token on


def test_prompts_repeat_with_their_seed_alone():
    assert unique(7, 5, 40) == unique(7, 5, 40)
    assert unique(7, 5, 40) != unique(8, 5, 40)
    assert shared(7, "prefix/0", 40) == shared(7, "prefix/0", 40)
    assert shared(7, "prefix/0", 40) != shared(7, "prefix/1", 40)


def test_prompts_too_short_to_differ_are_refused():
    assert len({tuple(unique(0, index, 1)) for index in range(256)}) == 256
    with pytest.raises(Invalid, match=r"only 256 prompts of 1 token"):
        unique(0, 256, 1)


async def test_an_engine_that_tokenizes_gets_ids_it_knows():
    engine = FakeEngine(schema.FakeEngine())
    wording = await wording_for(engine)
    prompt = wording.prompt(unique(0, 0, 50))
    assert isinstance(prompt, tuple)
    assert len(prompt) == 50
    assert await engine.detokenize(prompt)


def test_without_ids_a_symbol_is_a_word():
    assert Wording().prompt([0, 1]) == f"{WORDS[0]} {WORDS[1]}"
