from __future__ import annotations

import itertools

import pytest
from scipy.stats import kstest

from temper.measure.workload.arrivals import poisson


def gaps(rate, seed, count):
    times = list(itertools.islice(poisson(rate, seed), count))
    return [later - earlier for earlier, later in itertools.pairwise([0.0, *times])]


def test_gaps_are_exponential():
    """Kolmogorov–Smirnov over 20 seeds: p-values of a true exponential are uniform, so few are small."""
    found = [kstest(gaps(5.0, seed, 2000), "expon", args=(0, 1 / 5.0)).pvalue for seed in range(20)]
    assert sum(p < 0.01 for p in found) <= 2
    assert kstest(found, "uniform").pvalue > 0.001


def test_gaps_do_not_depend_on_each_other():
    found = gaps(1.0, 3, 5000)
    mean = sum(found) / len(found)
    product = sum((a - mean) * (b - mean) for a, b in itertools.pairwise(found))
    assert abs(product / sum((gap - mean) ** 2 for gap in found)) < 0.05


def test_the_last_arrival_is_not_moved_to_a_round_number():
    ends = {round(sum(gaps(10.0, seed, 100)), 6) for seed in range(10)}
    assert len(ends) == 10
    assert 10.0 not in ends


def test_seeds_repeat_and_differ():
    assert gaps(2.0, 1, 50) == gaps(2.0, 1, 50)
    assert gaps(2.0, 1, 50) != gaps(2.0, 2, 50)
    assert sum(gaps(2.0, 1, 50)) == pytest.approx(2 * sum(gaps(4.0, 1, 50)))
