from __future__ import annotations

from random import Random

import numpy as np
import pytest
from scipy import stats

from temper.measure.stats.proportion import at_most, design_effect, difference, lower_bound, upper_bound
from tests.measure.stats.nominal import most_errors


def test_bounds_are_the_textbooks():
    assert upper_bound(0, 100, 0.95) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert lower_bound(100, 100, 0.95) == pytest.approx(0.05 ** (1 / 100))
    assert lower_bound(0, 10, 0.99) == 0.0
    assert upper_bound(10, 10, 0.99) == 1.0


@pytest.mark.parametrize(("allowed", "needed"), [(0.10, 44), (0.05, 90), (0.01, 459)])
def test_a_clean_run_passes_from_the_known_numbers_on(allowed, needed):
    assert at_most(0, needed, allowed).verdict == "pass"
    assert at_most(0, needed - 1, allowed).verdict == "inconclusive"


def test_a_bad_run_fails_and_no_run_says_nothing():
    assert at_most(30, 100, 0.10).verdict == "fail"
    assert at_most(12, 100, 0.10).verdict == "inconclusive"
    assert at_most(0, 0, 0.10).verdict == "inconclusive"


def test_a_server_at_its_limit_seldom_passes():
    """True miss rate exactly 10 %: a pass is a false claim, and may come in 1 % of runs."""
    rng = Random(1)
    passes = sum(at_most(sum(rng.random() < 0.10 for _ in range(200)), 200, 0.10).verdict == "pass" for _ in range(400))
    assert passes <= 12


def test_newcombe_s_own_examples():
    """Table II of the paper, method 10: 56/70 − 48/80, 9/10 − 3/10, and 10/10 − 0/10."""
    assert difference(48, 80, 56, 70).interval == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference(3, 10, 9, 10).interval == pytest.approx((0.1705, 0.8090), abs=5e-5)
    assert difference(0, 10, 10, 10).interval == pytest.approx((0.6075, 1.0), abs=5e-5)


def test_a_difference_has_fisher_s_p_values():
    found = difference(1, 200, 9, 200)
    assert found.effect == pytest.approx(0.04)
    assert found.p_higher == pytest.approx(stats.fisher_exact([[9, 191], [1, 199]], alternative="greater").pvalue)
    assert difference(0, 0, 1, 5).reason == "an arm has no units"


def test_failures_of_two_equal_arms_are_told_apart_no_oftener_than_alpha():
    rng = np.random.default_rng(2)
    counts = rng.binomial(300, 0.02, (400, 2))
    estimates = [difference(int(a), 300, int(b), 300) for a, b in counts]
    assert sum(min(found.p_higher, found.p_lower) <= 0.025 for found in estimates) <= most_errors(0.05, 400)
    assert sum(not found.interval[0] <= 0 <= found.interval[1] for found in estimates) <= most_errors(0.05, 400)


def test_clusters_make_a_sample_smaller():
    assert design_effect([5, 0, 0, 0, 5, 0], [10] * 6) > 4
    assert design_effect([1, 2, 1, 2], [10] * 4) == 1
    assert design_effect([0, 0], [10, 10]) == design_effect([3], [10]) == 1
    together, apart = difference(10, 60, 20, 60, design_effect=4), difference(10, 60, 20, 60)
    assert together.interval[0] < 0 < apart.interval[0]
    assert together.p_higher > apart.p_higher
