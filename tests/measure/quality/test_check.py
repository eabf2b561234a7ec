"""Every kind of answer: what counts as right, and what does not."""

from __future__ import annotations

import pytest

from temper.errors import Unsupported
from temper.measure.quality.check import Check, same_json
from temper.measure.quality.generators.question import Expected


@pytest.mark.parametrize(
    ("expected", "right", "wrong"),
    [
        (Expected("number", "22.5"), "Answer: 45/2", "Answer: 22"),
        (Expected("number", "-3"), "The result is -3.", "Answer: 3"),
        (Expected("choice", "yes", ("yes", "no")), "Answer: Yes.", "Answer: no"),
        (Expected("text", "[1, 2]"), "Answer: `[1,  2]`", "Answer: [1, 3]"),
        (Expected("json", '{"a": 1, "b": "x"}'), 'Here: {"b": "x", "a": 1}', '{"a": 1}'),
    ],
)
def test_answers(expected, right, wrong):
    check = Check()
    assert check.right(expected, right)
    assert not check.right(expected, wrong)
    assert not check.right(expected, "")


def test_expressions_need_only_be_equal():
    pytest.importorskip("sympy")
    check = Check()
    assert check.right(Expected("expression", "2*x + 2"), "Answer: 2*(x + 1)")
    assert not check.right(Expected("expression", "2*x + 2"), "Answer: 2*x")


def test_code_is_run_against_its_tests():
    check = Check()
    expected = Expected("code", "def f(x):\n    return x + 1", (), "assert f(2) == 3")
    try:
        assert check.right(expected, "```python\ndef f(x):\n    return 1 + x\n```")
    except Unsupported as error:
        pytest.skip(str(error))
    assert not check.right(expected, "```python\ndef f(x):\n    return x\n```")


def test_the_last_object_counts():
    assert same_json('{"a": 0} or rather {"a": {"b": [1]}} {', '{"a": {"b": [1]}}')
    assert not same_json("{" * 3000, "{}")
    assert not same_json("nothing", "{}")
