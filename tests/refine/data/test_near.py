"""Near-duplicates: what reaches the threshold is found, nothing below it is, and similarity is exact."""

from __future__ import annotations

import random

import pytest

from temper.errors import Invalid
from temper.refine.data.near import NearIndex, shingles, similarity

pytest.importorskip("rensa")
WORDS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("ab", "el", "id", "on", "un", "ar")]


def text(rng: random.Random, length: int = 400) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(length))


def changed(rng: random.Random, original: str, words: int) -> str:
    parts = original.split()
    for place in rng.sample(range(len(parts)), words):
        parts[place] = "changed"
    return " ".join(parts)


def test_every_pair_above_the_threshold_is_found_and_none_below():
    rng = random.Random(0)
    texts: list[str] = []
    index = NearIndex(0.95, lambda number: texts[number])
    wanted = found = 0
    for number in range(60):
        texts.append(text(rng))
        index.add(number, texts[number])
    for number in range(60):
        for words in (0, 1, 2, 3, 4, 20):
            other = changed(rng, texts[number], words)
            share = similarity(shingles(texts[number]), shingles(other))
            nearest = index.nearest(other)
            wanted += share >= 0.95
            found += nearest == (number, share)
            assert (nearest is not None) == (share >= 0.95)
    assert wanted == found > 150


def test_chinese_is_compared_by_characters():
    one = "今天的天气很好,我们一起去公园散步,看到了很多花和鸟。" * 2
    assert similarity(shingles(one), shingles(one.replace("公园", "河边"))) > 0.7
    assert similarity(shingles(one), shingles("完全不同的一句话,说的是别的事情。")) == 0


def test_short_and_empty_texts_are_compared_whole():
    assert similarity(shingles("One"), shingles("one!")) == 1
    assert similarity(shingles(""), shingles("one")) == 0
    assert similarity(shingles(""), shingles("")) == 1


def test_a_known_text_is_not_added_again():
    texts = ["one two three four five six"] * 2
    index = NearIndex(0.95, lambda number: texts[number])
    assert index.add_if_new(0, texts[0]) is None
    assert index.add_if_new(1, texts[1]) == (0, 1.0)
    assert index.all_near(texts[0]) == [(0, 1.0)]


@pytest.mark.parametrize("threshold", [0.5, 1.1])
def test_thresholds_that_cannot_be(threshold: float):
    with pytest.raises(Invalid, match="share between"):
        NearIndex(threshold, lambda number: "")
