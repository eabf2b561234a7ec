from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from temper.errors import Invalid
from temper.measure.stats.bootstrap import percentile_ratio
from tests.measure.stats.nominal import most_errors


def latencies(rng: np.random.Generator, num: int, memory: float) -> np.ndarray:
    """Lognormal, autocorrelated from one to the next by `memory`."""
    steps = rng.normal(size=num + 50) * np.sqrt(1 - memory**2)
    return np.exp(0.4 * lfilter([1.0], [1.0, -memory], steps)[50:])


@pytest.mark.parametrize(("percent", "memory"), [(50, 0.7), (90, 0.0), (90, 0.7)])
def test_a_against_a_is_told_apart_no_oftener_than_alpha_though_neighbours_are_alike(percent, memory):
    rng = np.random.default_rng(1)
    told = 0
    for _ in range(200):
        found = percentile_ratio(latencies(rng, 300, memory), latencies(rng, 300, memory), percent, draws=150)
        told += not found.interval[0] <= 0 <= found.interval[1]
    assert told <= most_errors(0.05, 200)


def test_blocks_of_one_value_are_too_sure_of_themselves():
    rng = np.random.default_rng(2)
    told = 0
    for _ in range(100):
        found = percentile_ratio(latencies(rng, 300, 0.7), latencies(rng, 300, 0.7), 50, draws=150, block=1)
        told += not found.interval[0] <= 0 <= found.interval[1]
    assert told > most_errors(0.05, 100)


def test_a_slower_tail_is_found_and_the_same_seed_says_the_same():
    rng = np.random.default_rng(3)
    a, b = latencies(rng, 1000, 0.3), latencies(rng, 1000, 0.3)
    b = np.where(rng.random(1000) < 0.2, b * 3, b)
    found = percentile_ratio(a, b, 90)
    assert found.interval[0] > 0.2
    assert found == percentile_ratio(a, b, 90)
    assert found.evidence["a"] == pytest.approx(np.quantile(a, 0.9), rel=0.03)
    assert percentile_ratio(a, a, 50).effect == 0


def test_what_cannot_be_told():
    assert percentile_ratio([1.0] * 100, [1.0] * 400, 99).reason == "P99 needs 299 values, not 100"
    with pytest.raises(Invalid, match="above 0"):
        percentile_ratio([0.0] * 100, [1.0] * 100, 50)
