"""Every generator: repeatable, fresh with another seed, and right by a second way of working it out."""

from __future__ import annotations

import random
import re
from fractions import Fraction

import pytest

from temper.errors import MissingExtra
from temper.measure.quality.generated import GeneratedSuite
from temper.measure.quality.generators import algebra, arithmetic, logic, sequences, units, words
from temper.measure.quality.kinds import KINDS, find

GENERATORS = [arithmetic.question, words.english, words.chinese, logic.question, sequences.question, units.question]


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator.__module__.rpartition(".")[2])
def test_questions_are_many_and_their_answers_are_numbers_or_choices(generator):
    questions = [generator(random.Random(seed)) for seed in range(200)]
    assert len({question.text for question in questions}) > 150
    for question in questions:
        assert isinstance(question.answer, Fraction) or question.answer in question.choices


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.generated])
def test_a_seed_names_the_items_and_more_only_adds(name):
    try:
        suite = find(name)
    except MissingExtra as error:
        pytest.skip(str(error))
    few, many = suite.items(5, 4), suite.items(5, 9)
    assert [item.request for item in many[:4]] == [item.request for item in few]
    assert suite.items(6, 4)[0].request.messages != few[0].request.messages


def test_sums_are_right():
    for seed in range(300):
        question = arithmetic.question(random.Random(seed))
        text = question.text.removeprefix("What is ").removesuffix("?").replace("×", "*").replace("÷", "//")
        assert re.fullmatch(r"[\d+*/() -]+", text)
        assert eval(text) == question.answer


def test_both_languages_tell_the_same_story():
    for seed in range(60):
        english, chinese = (words.english(random.Random(seed)), words.chinese(random.Random(seed)))
        assert english.answer == chinese.answer
        assert sorted(re.findall(r"\d+", english.text)) == sorted(re.findall(r"\d+", chinese.text))


def test_orders_follow_from_what_is_told():
    for seed in range(200):
        question = logic.question(random.Random(seed))
        if "taller" in question.text:
            above = dict(re.findall(r"(\w+) is taller than (\w+)", question.text))
            tallest = (set(above) - set(above.values())).pop()
            shortest = (set(above.values()) - set(above)).pop()
            assert question.answer == (tallest if "tallest" in question.text else shortest)


def test_truth_is_what_python_says():
    for seed in range(300):
        question = logic.question(random.Random(seed))
        if "statement '" in question.text:
            names = {name: value == "true" for name, value in re.findall(r"([PQR]) is (true|false)", question.text)}
            statement = re.findall(r"'(.+)'", question.text)[0]
            assert question.answer == ("yes" if eval(statement, {}, names) else "no")


def test_exercises_of_algebra_agree_with_sympy():
    sympy = pytest.importorskip("sympy")
    x = sympy.Symbol("x")
    for seed in range(60):
        question = algebra.question(random.Random(seed))
        asked = question.text.replace("^", "**")
        answer = sympy.sympify(str(question.answer))
        if asked.startswith("Expand"):
            expected = sympy.expand(sympy.sympify(asked.removeprefix("Expand ").partition(" into")[0]))
        elif asked.startswith("What is the derivative"):
            expected = sympy.diff(sympy.sympify(re.findall(r"of (.+) with", asked)[0]), x)
        elif asked.startswith("Solve"):
            left, right = re.findall(r"x: (.+) = (.+)\. Give", asked)[0]
            (expected,) = sympy.solve(sympy.sympify(left) - sympy.sympify(right), x)
        else:
            expected = sympy.sympify(re.findall(r"Simplify (.+)\.", asked)[0])
        assert sympy.simplify(expected - answer) == 0


def test_a_suite_takes_any_generator():
    suite = GeneratedSuite("mine", arithmetic.question)
    assert [item.id for item in suite.items(1, 2)] == ["mine-0", "mine-1"]
