from __future__ import annotations

import json
import math

import numpy as np
import pytest

from temper.errors import Invalid
from temper.measure.stats.sequential.quantiles import Quantile, QuantileRatio
from tests.measure.stats.nominal import most_errors

ALPHA = 0.1


@pytest.mark.parametrize("percent", [50, 95])
def test_a_quantile_is_missed_at_20_looks_no_oftener_than_alpha(percent):
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(100):
        values = rng.lognormal(3, 0.5, 300)
        truth = math.exp(3 + 0.5 * {50: 0.0, 95: 1.6448536}[percent])
        sequence = Quantile(percent)
        for number, value in enumerate(values.tolist()):
            sequence.observe(value)
            low, high = sequence.interval(ALPHA) if number % 15 == 14 else (0.0, math.inf)
            if not low <= truth <= high:
                missed += 1
                break
    assert missed <= most_errors(ALPHA, 100)


def test_the_interval_closes_in_on_the_quantile():
    rng = np.random.default_rng(2)
    values = rng.lognormal(3, 0.5, 20_000)
    widths = []
    sequence = Quantile(99)
    for number, value in enumerate(values.tolist(), 1):
        sequence.observe(value)
        if number in (200, 2000, 20_000):
            low, high = sequence.interval(ALPHA)
            assert low <= sequence.estimate <= high
            widths.append(math.log(high / low) if low > 0 else math.inf)
    assert widths[0] == math.inf  # 200 values do not carry a P99
    assert widths[2] < widths[1] / 2 < 0.5
    assert sequence.estimate == pytest.approx(np.quantile(values, 0.99), rel=0.02)


def test_ties_and_zero_and_the_endless_are_counted():
    sequence = Quantile(50)
    for value in [0.0] * 5 + [7.0] * 90 + [math.inf] * 5:
        sequence.observe(value)
    low, high = sequence.interval(ALPHA)
    assert low == pytest.approx(7, rel=0.011)
    assert low <= 7 < high == pytest.approx(7, rel=0.011)
    stuck = Quantile(90)
    for _ in range(200):
        stuck.observe(math.inf)
    assert stuck.interval(ALPHA)[1] == math.inf
    with pytest.raises(Invalid, match="0 and more, but -1 came"):
        sequence.observe(-1)
    with pytest.raises(Invalid, match="but nan came"):
        sequence.observe(math.nan)


def test_the_ratio_of_two_arms():
    rng = np.random.default_rng(3)
    pair = QuantileRatio(90)
    assert pair.interval(ALPHA) == (-1, math.inf)
    assert pair.estimate is None
    for _ in range(3000):
        pair = QuantileRatio.restored(json.loads(json.dumps(pair.state()))) if rng.random() < 0.01 else pair
        pair.observe(float(rng.lognormal(0, 0.5)), in_b=False)
        pair.observe(float(rng.lognormal(0, 0.5)) * 1.5, in_b=True)
    low, high = pair.interval(ALPHA)
    assert 0 < low < 0.5 < high < 1
    assert pair.estimate == pytest.approx(0.5, abs=0.1)
    assert pair.num_units == (3000, 3000)
