"""Harder questions keep their numbers, their instructions and their answers."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.asking import Answer, Sample
from temper.measure.quality import kinds
from temper.measure.quality.adversarial import KINDS, harder

QUESTION = "Mia has 20 apples and gives 7 of them to Omar. How many apples does Mia have now?\n\nAnswer with one line."


def test_typos_leave_numbers_names_and_the_rest_alone():
    for seed in range(200):
        found = harder(QUESTION, "typos", random.Random(seed))
        assert found != QUESTION
        assert found.endswith("\n\nAnswer with one line.")
        assert re.findall(r"\d+", found) == ["20", "7"]
        assert "Omar" in found
        assert found.count("Mia") == 2


def test_a_distractor_stands_in_front_of_the_whole_question():
    found = harder(QUESTION, "distractor", random.Random(0))
    assert found.endswith(QUESTION)
    assert len(found) > len(QUESTION)
    assert harder("小明有3个苹果。", "distractor", random.Random(0)).endswith("小明有3个苹果。")


@given(text=st.text(), seed=st.integers(0, 1000), kind=st.sampled_from(KINDS))
def test_any_text_can_be_made_harder_and_always_the_same_way(text, seed, kind):
    assert harder(text, kind, random.Random(seed)) == harder(text, kind, random.Random(seed))


@pytest.mark.parametrize("name", ["arithmetic", "words"])
def test_the_suite_asks_the_same_questions_and_scores_them_alike(name):
    plain, hard = kinds.find(name), kinds.find(f"{name}_adversarial")
    before, after = plain.items(5, 20), hard.items(5, 20)
    assert [item.id for item in before] == [item.id for item in after]
    for old, new in zip(before, after, strict=True):
        [asked], [was] = new.request.messages, old.request.messages
        assert asked.content != was.content
        assert asked.content.endswith(was.content.partition("\n\n")[2])
        answer = Answer(samples=(Sample(text=f"Answer: {old.reference.expected.answer}"),))
        assert hard.score(new, answer) == {"correct": 1.0}
