"""Simulations hold every test to its α by the binomial bound; scipy is the judge of single figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from temper.errors import Invalid
from temper.measure.stats.ab import cuped, mann_whitney, paired, residuals, welch
from tests.measure.stats.nominal import fewest_found, most_errors

RUNS = 600


def misses(estimates, truth: float = 0.0) -> int:
    return sum(not found.interval[0] <= truth <= found.interval[1] for found in estimates)


def test_paired_t_is_scipy_s():
    rng = np.random.default_rng(1)
    a, b = rng.lognormal(3, 0.3, 12), rng.lognormal(3.1, 0.3, 12)
    found, judge = paired(a, b), stats.ttest_rel(np.log(b), np.log(a))
    low, high = judge.confidence_interval(0.95)
    assert found.interval == pytest.approx((math.expm1(low), math.expm1(high)))
    assert found.effect == pytest.approx(math.exp(np.mean(np.log(b / a))) - 1)
    assert found.evidence["p_value"] == pytest.approx(judge.pvalue)
    assert found.p_higher == pytest.approx(stats.ttest_rel(np.log(b), np.log(a), alternative="greater").pvalue)
    logs = np.log(b / a)
    assert found.evidence["cohens_d_z"] == pytest.approx(logs.mean() / logs.std(ddof=1))
    assert found.num_units == 12
    raw = paired(a, b, log=False)
    assert raw.interval == pytest.approx(tuple(stats.ttest_rel(b, a).confidence_interval(0.95)))


def test_welch_is_scipy_s():
    rng = np.random.default_rng(2)
    a, b = rng.normal(10, 1, 15), rng.normal(11, 3, 9)
    found, judge = welch(a, b, log=False), stats.ttest_ind(b, a, equal_var=False)
    assert found.interval == pytest.approx(tuple(judge.confidence_interval(0.95)))
    assert found.evidence["p_value"] == pytest.approx(judge.pvalue)
    pooled = math.sqrt((14 * a.var(ddof=1) + 8 * b.var(ddof=1)) / 22)
    assert found.evidence["hedges_g"] == pytest.approx((1 - 3 / 87) * (b.mean() - a.mean()) / pooled)


def test_mann_whitney_is_scipy_s_with_the_chance_in_words():
    a, b = [1.0, 2, 3, 4], [3.5, 5, 6, 7]
    found = mann_whitney(a, b)
    assert found["p_value"] == pytest.approx(stats.mannwhitneyu(a, b).pvalue)
    assert found["chance_b_above_a"] == pytest.approx(15 / 16)
    with pytest.raises(Invalid, match="both arms"):
        mann_whitney([], b)


def test_a_against_a_is_told_apart_no_oftener_than_alpha():
    rng = np.random.default_rng(3)
    pairs, arms = [], []
    for _ in range(RUNS):
        drift = rng.normal(0, 0.5, 10)  # what both arms of a pair feel
        pairs.append(paired(np.exp(drift + rng.normal(0, 0.1, 10)), np.exp(drift + rng.normal(0, 0.1, 10))))
        arms.append(welch(rng.lognormal(3, 0.2, 10), rng.lognormal(3, 0.2, 20)))
    assert misses(pairs) <= most_errors(0.05, RUNS)
    assert misses(arms) <= most_errors(0.05, RUNS)


def test_a_figure_known_before_narrows_the_interval_and_costs_no_truth():
    """CUPED: the incumbent took about as long for each request as both arms do now."""
    rng = np.random.default_rng(4)
    found, widths = [], []
    for _ in range(RUNS):
        known = rng.normal(3, 0.5, 60)
        now = np.exp(known + rng.normal(0, 0.2, 60)) * np.where(np.arange(60) < 30, 1.0, 1.1)
        a, b, before = now[:30], now[30:], np.exp(known)
        found.append(cuped(a, before[:30], b, before[30:]))
        plain = welch(a, b)
        widths.append(math.log1p(plain.interval[1]) - math.log1p(plain.interval[0]))
    assert misses(found, 0.1) <= most_errors(0.05, RUNS)
    assert np.mean([one.evidence["variance_removed"] for one in found]) == pytest.approx(1 - 0.04 / 0.29, abs=0.03)
    assert all("CUPED" in one.method for one in found)


def test_cuped_keeps_out_where_nothing_is_known_before():
    rng = np.random.default_rng(5)
    a, b = rng.lognormal(0, 1, 5), rng.lognormal(0, 1, 5)
    assert cuped(a, [1.0] * 5, b, [1.0] * 5) == welch(a, b)
    assert cuped(a[:2], a[:2], b, b) == welch(a[:2], b)
    with pytest.raises(Invalid, match="its covariate"):
        cuped(a, [1.0], b, [1.0] * 5)


def test_the_order_within_a_pair_is_regressed_out():
    rng = np.random.default_rng(6)
    order = np.tile([-1.0, 1.0], 6)
    found, plain = [], []
    for _ in range(RUNS):
        a = np.exp(rng.normal(0, 0.02, 12))
        b = np.exp(rng.normal(0, 0.02, 12) + 0.1 * order)  # whoever comes second is slower
        found.append(paired(a, b, covariate=order))
        plain.append(paired(a, b))
    assert misses(found) <= most_errors(0.05, RUNS)
    assert found[0].method.endswith("CUPED")
    widths = [np.mean([one.interval[1] - one.interval[0] for one in group]) for group in (found, plain)]
    assert widths[0] < widths[1] / 2
    assert residuals([1.0, 2, 3], [1.0, 2, 3]) == pytest.approx([2, 2, 2])
    with pytest.raises(Invalid, match="there are 2 and 1"):
        residuals([1.0, 2.0], [1.0])


def test_power_is_as_planned():
    from temper.measure.stats.power import pairs_needed, units_needed

    rng = np.random.default_rng(7)
    num = pairs_needed(0.1, 0.12, power=0.9)
    found = sum(paired(np.ones(num), np.exp(rng.normal(math.log(1.1), 0.12, num))).interval[0] > 0 for _ in range(RUNS))
    assert fewest_found(0.9, RUNS) <= found <= RUNS - fewest_found(0.1, RUNS)
    num = units_needed(0.2, 0.3, power=0.8)
    found = sum(
        welch(rng.lognormal(0, 0.3, num), rng.lognormal(math.log(1.2), 0.3, num)).interval[0] > 0 for _ in range(RUNS)
    )
    assert fewest_found(0.8, RUNS) <= found <= RUNS - fewest_found(0.2, RUNS)


def test_too_little_says_why():
    assert paired([], []).reason == "there are no pairs"
    two = paired([1.0, 2.0], [2.0, 4.0])
    assert (two.effect, two.interval) == (pytest.approx(1), None)
    assert two.reason == "an interval needs 3 pairs, but there are 2"
    assert welch([], [1.0]).reason == "an arm has no values"
    assert welch([1.0], [2.0]).reason == "each arm needs 2 units for an interval"
    wild = paired([1e-300, 1.0, 1.0], [1e300, 1e-300, 1.0])
    assert wild.interval[1] < math.inf
    alike = paired([1.0, 2, 3], [1.0, 2, 3])
    assert (alike.effect, alike.interval, alike.p_higher, alike.p_lower) == (0, (0, 0), 1, 1)
    with pytest.raises(Invalid, match="as many values of A as of B, not 1 and 2"):
        paired([1.0], [1.0, 2.0])
    with pytest.raises(Invalid, match="values above 0, but the least is 0"):
        paired([0.0], [1.0])
