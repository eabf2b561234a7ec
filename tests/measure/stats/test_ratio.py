from __future__ import annotations

import pytest

from temper.measure.stats.ratio import paired


def test_equal_ratios_have_no_spread():
    found = paired([100, 50, 10, 20], [150, 75, 15, 30])
    assert found.median == found.low == found.high == pytest.approx(1.5)
    assert found.effect == pytest.approx(0.5)
    assert found.interval == (pytest.approx(0.5), pytest.approx(0.5))


def test_the_interval_is_students():
    found = paired([1, 1, 1], [1.0, 1.1, 1.21])
    # logs 0, .09531, .19062; t(2, .975) = 4.30265; half width = t · .09531 / √3
    assert found.effect == pytest.approx(0.1)
    assert found.interval[0] == pytest.approx(1.1 * 2.718281828459045**-0.236765 - 1, rel=1e-4)
    assert found.rounds == 3


def test_pairing_removes_what_both_feel():
    slow_then_fast = [100, 10, 55, 20]
    assert paired(slow_then_fast, [value * 2 for value in slow_then_fast]).interval == (
        pytest.approx(1),
        pytest.approx(1),
    )


def test_too_little_for_an_interval_and_for_anything():
    assert paired([1, 2], [2, 4]).interval is None
    assert paired([0.0], [1.0]) is None
    assert paired([], []) is None
