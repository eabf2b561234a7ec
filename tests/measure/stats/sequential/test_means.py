"""Every simulation looks after every unit from the third on: a false alarm at any look counts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from temper.errors import Invalid
from temper.measure.stats.sequential.means import (
    DrawnDifference,
    Mean,
    MeanDifference,
    Moments,
    difference_half_width,
    half_width,
    ratio,
    running_difference,
)
from tests.measure.stats.nominal import fewest_found, most_errors

ALPHA = 0.05


def running(values: np.ndarray, kept: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean and unbiased variance at every look along the last axis, of the values that are kept."""
    kept = np.ones(values.shape, dtype=bool) if kept is None else kept
    count = kept.cumsum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (values * kept).cumsum(axis=-1) / count
        variance = ((values**2 * kept).cumsum(axis=-1) - count * mean**2) / (count - 1)
    return count, mean, np.maximum(variance, 0)


def ever_missed(values: np.ndarray, truth: float) -> int:
    count, mean, variance = (part[:, 2:] for part in running(values))
    half = half_width(np.sqrt(variance / count), count - 1, count, ALPHA, planned=200)
    return int((np.abs(mean - truth) > half).any(axis=1).sum())


def test_a_mean_is_missed_at_any_look_no_oftener_than_alpha():
    assert ever_missed(np.random.default_rng(1).normal(size=(2000, 1000)), 0.0) <= most_errors(ALPHA, 2000)


@pytest.mark.parametrize("shape", ["student", "logistic"])
def test_nor_with_heavier_tails(shape):
    rng = np.random.default_rng(2)
    values = rng.standard_t(5, (2000, 500)) if shape == "student" else rng.logistic(size=(2000, 500))
    assert ever_missed(values, 0.0) <= most_errors(ALPHA, 2000)


def ever_told_apart_by_welch(values: np.ndarray, in_b: np.ndarray, fewest: int = 10) -> np.ndarray:
    (na, ma, va), (nb, mb, vb) = running(values, ~in_b), running(values, in_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = difference_half_width(na, va, nb, vb, ALPHA, planned_units=400)
        return ((np.abs(mb - ma) > half) & (np.minimum(na, nb) >= fewest)).any(axis=1)


def ever_told_apart(values: np.ndarray, in_b: np.ndarray, share: float | np.ndarray) -> np.ndarray:
    slope, half = running_difference(values, in_b, share, ALPHA)
    return (np.abs(slope) > half).any(axis=1)


@pytest.mark.parametrize(("share", "spread"), [(0.5, 1.0), (0.1, 1.0), (0.1, 3.0), (0.3, 0.3)])
def test_two_arms_alike_are_told_apart_no_oftener_than_alpha_at_any_share_and_spread(share, spread):
    rng = np.random.default_rng(3)
    in_b = rng.random((1000, 1000)) < share
    values = rng.normal(size=in_b.shape) * np.where(in_b, spread, 1.0)
    assert ever_told_apart(values, in_b, share).sum() <= most_errors(ALPHA, 1000)
    assert ever_told_apart_by_welch(values, in_b).sum() <= most_errors(ALPHA, 1000)


def autocorrelated(rng: np.random.Generator, runs: int, length: int, memory: float) -> np.ndarray:
    values = np.empty((runs, length))
    now = rng.normal(size=runs)
    for at in range(length):
        now = memory * now + math.sqrt(1 - memory**2) * rng.normal(size=runs)
        values[:, at] = now
    return values


@pytest.mark.parametrize("memory", [0.95, 0.999])
def test_neither_autocorrelation_nor_a_share_that_grows_meanwhile_does_harm(memory):
    rng = np.random.default_rng(4)
    share = np.repeat([0.05, 0.25, 0.5], [400, 300, 300])
    values = autocorrelated(rng, 1000, 1000, memory)
    in_b = rng.random(values.shape) < share
    assert ever_told_apart(values, in_b, share).sum() <= most_errors(ALPHA, 1000)
    assert ever_told_apart_by_welch(values, in_b).mean() > 0.3  # B is asked more in the later hours


def test_autocorrelation_alone_harms_neither():
    rng = np.random.default_rng(8)
    values = autocorrelated(rng, 1000, 1000, memory=0.95)
    in_b = rng.random(values.shape) < 0.2
    assert ever_told_apart_by_welch(values, in_b).sum() <= most_errors(ALPHA, 1000)


def test_a_draw_that_is_none_does():
    """Why the arm must be drawn, unit by unit: here each arm has its own hours."""
    rng = np.random.default_rng(5)
    values = autocorrelated(rng, 300, 1000, memory=0.999)
    in_b = np.broadcast_to(np.arange(1000) // 250 % 2 == 1, values.shape)
    assert ever_told_apart(values, in_b, 0.5).mean() > 0.3


def test_20_percent_slower_is_found():
    """Logs of latency with a spread of 0.4, a tenth of 2,000 requests."""
    rng = np.random.default_rng(6)
    in_b = rng.random((500, 2000)) < 0.1
    values = rng.normal(0, 0.4, in_b.shape) + in_b * math.log(1.2)
    assert ever_told_apart(values, in_b, 0.1).sum() >= fewest_found(0.97, 500)


def test_the_classes_say_what_the_arrays_say_and_survive_restarts():
    rng = np.random.default_rng(7)
    values = rng.normal(1, 2, 60)
    in_b = rng.random(60) < 0.4
    mean, welch, drawn = Mean(), MeanDifference(), DrawnDifference()
    for value, b in zip(values.tolist(), in_b.tolist(), strict=True):
        mean = Mean.restored(json.loads(json.dumps(mean.state())))
        welch = MeanDifference.restored(json.loads(json.dumps(welch.state())))
        drawn = DrawnDifference.restored(json.loads(json.dumps(drawn.state())))
        mean.observe(value)
        welch.observe(value, in_b=b)
        drawn.observe(value, in_b=b, share=0.4)
    half = half_width(values.std(ddof=1) / math.sqrt(60), 59, 60, ALPHA, 200)
    assert mean.interval(ALPHA) == pytest.approx((values.mean() - half, values.mean() + half))
    a, b = values[~in_b], values[in_b]
    half = difference_half_width(len(a), a.var(ddof=1), len(b), b.var(ddof=1), ALPHA, planned_units=400)
    centre = b.mean() - a.mean()
    assert welch.interval(ALPHA) == pytest.approx((centre - half, centre + half))
    slope, half = (found[0, -1] for found in running_difference(values[None], in_b[None], 0.4, ALPHA))
    assert drawn.interval(ALPHA) == pytest.approx((slope - half, slope + half))
    assert (mean.estimate, welch.estimate) == (pytest.approx(values.mean()), pytest.approx(centre))
    assert drawn.estimate == pytest.approx(centre, abs=0.5)
    assert welch.num_units == drawn.num_units == (len(a), len(b))


def test_it_is_the_bayes_factor_of_gonen():
    """The interval ends where the closed-form Bayes factor for a normal prior on the effect size is 1/α."""
    n, error = 37, 0.13
    half = float(half_width(error, n - 1, n, ALPHA, planned=200))
    information = 1.0
    for _ in range(100):
        information = math.log((1 + information) / ALPHA**2)
    g, t = information / 200, half / error
    factor = (1 + n * g) ** -0.5 * ((1 + t**2 / (n - 1)) / (1 + t**2 / ((n - 1) * (1 + n * g)))) ** (n / 2)
    assert factor == pytest.approx(1 / ALPHA)


def test_too_little_says_nothing():
    assert Mean().interval(ALPHA) == (-math.inf, math.inf)
    assert Mean().estimate is MeanDifference().estimate is DrawnDifference().estimate is None
    same = Mean()
    for _ in range(10):
        same.observe(1.0)
    assert same.interval(ALPHA) == (-math.inf, math.inf)
    few, drawn = MeanDifference(), DrawnDifference()
    for number in range(9):
        for arm in (False, True):
            few.observe(float(number), in_b=arm)
            drawn.observe(float(number), in_b=arm, share=0.5)
    assert few.interval(ALPHA) == drawn.interval(ALPHA) == (-math.inf, math.inf)
    assert Moments().variance == 0.0
    with pytest.raises(Invalid, match="finite values, but nan"):
        Mean().observe(math.nan)
    with pytest.raises(Invalid, match="finite values, but inf"):
        drawn.observe(math.inf, in_b=True, share=0.5)
    with pytest.raises(Invalid, match="needs both arms, but B's share is 1"):
        drawn.observe(1.0, in_b=True, share=1.0)


def test_logs_become_ratios():
    assert ratio((math.log(0.9), math.log(1.2))) == pytest.approx((-0.1, 0.2))
    assert ratio((-math.inf, math.inf)) == (-1, math.inf)
