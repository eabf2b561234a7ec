"""Equations in running text: what is judged, what is passed over, and that nothing breaks the reader."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.measure.quality.equations import check, value


@pytest.mark.parametrize(
    ("line", "num_true"),
    [
        ("523 + 800 = 1323", 1),
        ("So 17 × 14 = 17 × 10 + 17 × 4 = 170 + 68 = 238.", 3),
        ("5. 3 + 4 = 7", 1),
        ("First: 1,200 + 300 = 1,500, then 1500 ÷ 3 = 500.", 2),
        ("3 × 24 = 72 apples, 72 - 5 = 67 apples", 2),
        ("1.5^2 = 2.25", 1),
        ("10 ÷ 3 ≈ 3.33", 1),
        ("-3 + 5 = 2", 1),
        ("2/4 = 1/2", 1),
    ],
)
def test_true_ones_are_counted(line, num_true):
    found = check([line])
    assert (found.num_true, found.false) == (num_true, ())


@pytest.mark.parametrize("line", ["5 + 3 = 9", "So 84 - 37 = 57.", "10 ÷ 3 ≈ 3.34", "10 ÷ 3 = 3.33", "7 × 8 = 54 cm"])
def test_false_ones_are_named(line):
    assert len(check([line]).false) == 1


@pytest.mark.parametrize(
    "line",
    ["x = 5", "2x + 3 = 7", "half of 50 = 25", "20% of 50 + 5 = 15", "P and Q = true", "a total = 9", "1 ÷ 0 = 3",
     "area = 3 m2 = 9", "10 = 2x", "", "= = =", "x + 3 = 7"],
)  # fmt: skip
def test_others_are_passed_over(line):
    assert check([line]).false == ()
    assert check([line]).num_true == 0


def test_what_binds_first_is_as_at_school():
    assert value("2 + 3 × 4 - 6 / 3") == 12
    assert value("-2^2") == -4
    assert value("(1 - 4) * -2") == 6
    assert value("2^999999999") is None
    assert value("(" * 5000) is None
    assert value("1 2") is None or value("1 2") == Fraction(12)


@given(st.text(alphabet="0123456789+-×÷*/^().,= ≈xof\n%", max_size=60))
def test_no_text_breaks_it(text):
    check([text])
