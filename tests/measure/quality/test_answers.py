from __future__ import annotations

from fractions import Fraction

import pytest

from temper.asking import Sample
from temper.measure.quality.answers import code_block, final_choice, final_expression, final_number, final_text


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("<think>2+2=5?</think>\n\n4", "4"),
        ("opened by the template</think>4", "4"),
        ("<think>never ends 4", ""),
        ("plain", "plain"),
    ],
)
def test_thinking_is_no_answer(said, left):
    assert final_text(Sample(text=said)) == left


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("First 12, then 5.\nAnswer: 17", Fraction(17)),
        ("The answer is $1,234.50.", Fraction("1234.5")),
        (r"so \boxed{-7}, not 8", Fraction(-7)),
        ("答案:3/4", Fraction(3, 4)),
        ("It is 3 + 4 = 7", Fraction(7)),
        ("**Answer: 42**\n", Fraction(42)),
        ("Answer: −5", Fraction(-5)),
        ("Answer: 1/0", None),
        ("no idea", None),
        ("", None),
    ],
)
def test_the_number_that_counts(text, number):
    assert final_number(text) == number


def test_the_choice_that_counts():
    assert final_choice("No wait.\nAnswer: yes", ("yes", "no")) == "yes"
    assert final_choice("I know nothing", ("yes", "no")) is None  # "no" inside a word is no answer
    assert final_choice("Ben or Ann? ANN", ("Ann", "Ben")) == "Ann"
    assert final_expression("x\n\nThe answer is `2*x`.") == "2*x"


def test_code_is_taken_from_its_block():
    text = "Here:\n```sh\nls\n```\nand\n```python\nx = 1\n```\nDone"
    assert code_block(text) == "x = 1"
    assert code_block("```\ny = 2") == "y = 2"  # cut off before its end
    assert code_block("z = 3") == "z = 3"
