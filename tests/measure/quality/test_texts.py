from __future__ import annotations

import pytest

from temper.measure.quality.texts import cohesion, common_share, distinct, repetition, sentences, words


def test_words_and_sentences_of_both_languages():
    assert words("It's 你好, World!") == ["it's", "你", "好", "world"]
    assert sentences("One. Two! 三。四?\n- five") == ["One.", "Two!", "三。", "四?", "- five"]


def test_repetition_counts_ngrams_that_stood_before():
    assert repetition(list("abcdabcd")) == pytest.approx(1 / 5)
    assert repetition(list("aaaaaaaa")) == pytest.approx(4 / 5)
    assert repetition(list("ab")) == 0.0


def test_distinct_pairs():
    assert distinct(list("abab"), 2) == pytest.approx(2 / 3)
    assert distinct(["a"], 2) == 0.0


def test_cohesion_is_of_neighbours():
    same = cohesion("The river flows. The river flows.")
    apart = cohesion("The river flows. Bakers knead dough.")
    assert same == pytest.approx(1.0)
    assert apart == pytest.approx(0.0)
    assert cohesion("Only one sentence.") is None


def test_the_longest_common_subsequence_by_hand():
    assert common_share(["a", "b", "c", "d"], ["a", "x", "c"]) == pytest.approx(2 * 2 / 7)
    assert common_share([], []) == 1.0
    assert common_share(["a"], []) == 0.0
