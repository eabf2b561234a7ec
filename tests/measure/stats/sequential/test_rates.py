"""Every simulation looks after every unit: a false alarm at any look counts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from temper.errors import Invalid
from temper.measure.stats.sequential.bets import Seen, bounds, log_wealth, mirrored
from temper.measure.stats.sequential.rates import PairedRateDifference, Rate, RateDifference, scores
from tests.measure.stats.nominal import fewest_found, most_errors

ALPHA = 0.05


def ever_refuted(groups: list[Seen], mean: float, alpha: float = ALPHA) -> np.ndarray:
    """Runs in which the confidence sequence for `mean` missed it at some look; counts are (runs, looks, values)."""
    needed = np.log(2 / alpha)
    up, down = log_wealth(groups, mean), log_wealth(mirrored(groups), -mean)
    return ((up >= needed) | (down >= needed)).any(axis=1)


def in_chunks(runs: np.ndarray, size: int = 100):
    return (runs[start : start + size] for start in range(0, len(runs), size))


@pytest.mark.parametrize("rate", [0.5, 0.02])
def test_a_rate_is_missed_at_any_look_no_oftener_than_alpha(rate):
    hits = np.random.default_rng(1).random((1000, 1000)) < rate
    missed = 0
    for chunk in in_chunks(hits):
        cumulated = chunk.cumsum(axis=1)
        looks = np.arange(1, chunk.shape[1] + 1)
        missed += ever_refuted([Seen((0.0, 1.0), np.stack([looks - cumulated, cumulated], -1))], rate).sum()
    assert missed <= most_errors(ALPHA, 1000)


def bursts(rng: np.random.Generator, runs: int, length: int) -> np.ndarray:
    """Failures that come in bursts of about 50 units, more of them as the run goes on: as far from independent as
    a server's bad minutes."""
    bad = np.zeros((runs, length), dtype=bool)
    now = np.zeros(runs, dtype=bool)
    for at in range(length):
        begins = rng.random(runs) < 0.001 * (1 + at / length)
        now = np.where(now, rng.random(runs) < 0.98, begins)
        bad[:, at] = now
    return bad & (rng.random((runs, length)) < 0.6)


def cumulated_counts(hit: np.ndarray, in_b: np.ndarray, share: np.ndarray) -> list[Seen]:
    """What `RateDifference` would have counted, at every look; `share` holds for all runs at each look."""
    groups = []
    for value in np.unique(share):
        here = share == value
        cells = [(~in_b & ~hit), (~in_b & hit), (in_b & ~hit), (in_b & hit)]
        groups.append(Seen(scores(float(value), 0.0), np.stack([(c & here).cumsum(axis=1) for c in cells], -1)))
    return groups


STEPS = np.repeat([0.05, 0.25, 0.5], [300, 300, 400])


def test_a_against_a_is_told_apart_no_oftener_than_alpha_though_failures_come_in_bursts_and_the_share_grows():
    rng = np.random.default_rng(2)
    hit = bursts(rng, 1000, len(STEPS))
    in_b = rng.random(hit.shape) < STEPS
    assert hit.mean() > 0.01
    pairs = zip(in_chunks(hit, 50), in_chunks(in_b, 50), strict=True)
    told = sum(ever_refuted(cumulated_counts(h, b, STEPS), 0.0).sum() for h, b in pairs)
    assert told <= most_errors(ALPHA, 1000)


def test_a_candidate_that_fails_1_percent_is_found():
    """Against a clean incumbent, by 10,000 requests of which it gets a tenth, looked at after every 100."""
    rng = np.random.default_rng(3)
    in_b = rng.random((500, 10_000)) < 0.1
    hit = in_b & (rng.random(in_b.shape) < 0.01)
    (seen,) = cumulated_counts(hit, in_b, np.full(10_000, 0.1))
    wealth = log_wealth([Seen(seen.values, seen.counts[:, ::100])], 0.0)
    found = (wealth >= np.log(2 / ALPHA)).any(axis=1)
    assert found.sum() >= fewest_found(0.97, 500)


def test_the_class_says_what_the_arrays_say_and_survives_a_restart():
    rng = np.random.default_rng(4)
    one = RateDifference()
    shares = [0.05] * 100 + [0.5] * 300
    units = [(bool(rng.random() < 0.2), bool(rng.random() < share), share) for share in shares]
    for hit, in_b, share in units:
        one = RateDifference.restored(json.loads(json.dumps(one.state())))
        one.observe(hit, in_b=in_b, share=share)
    b = [hit for hit, in_b, _ in units if in_b]
    a = [hit for hit, in_b, _ in units if not in_b]
    assert one.num_units == (len(a), len(b))
    assert one.estimate == pytest.approx(sum(b) / len(b) - sum(a) / len(a))
    low, high = one.interval(ALPHA)
    assert -0.5 < low < 0 < high < 0.5
    assert one.evidence_above(low) == pytest.approx(np.log(2 / ALPHA), abs=1e-3)
    assert one.evidence_below(high) == pytest.approx(np.log(2 / ALPHA), abs=1e-3)


def test_an_expected_rate_narrows_the_interval_where_rates_are_high():
    rng = np.random.default_rng(5)
    blind, guided = RateDifference(), RateDifference(expected=0.4)
    for _ in range(2000):
        hit, in_b = bool(rng.random() < 0.4), bool(rng.random() < 0.2)
        for one in (blind, guided):
            one.observe(hit, in_b=in_b, share=0.2)
    width = [high - low for low, high in (blind.interval(ALPHA), guided.interval(ALPHA))]
    assert width[1] < 0.85 * width[0]


def test_no_draw_no_comparison():
    with pytest.raises(Invalid, match="needs both arms, but B's share is 1"):
        RateDifference().observe(False, in_b=True, share=1.0)
    assert RateDifference().interval(ALPHA) == (-1, 1)
    assert RateDifference().estimate is None


def test_pairs_of_answers_count_only_where_they_differ():
    rng = np.random.default_rng(6)
    pairs = PairedRateDifference()
    for _ in range(3000):
        hard = rng.random() < 0.3
        pairs.observe(bool(hard and rng.random() < 0.9), bool(hard and rng.random() < 0.9) or bool(rng.random() < 0.05))
    low, high = PairedRateDifference.restored(pairs.state()).interval(ALPHA)
    assert 0 < low < pairs.estimate < high < 0.08


def test_bounds_of_a_rate_are_where_wealth_reaches_its_mark():
    rate = Rate()
    for number in range(400):
        rate = Rate.restored(rate.state())
        rate.observe(number % 20 == 0)
    low, high = rate.interval(ALPHA)
    assert 0 < low < 0.05 < high < 0.15
    assert rate.evidence_above(low) == pytest.approx(np.log(2 / ALPHA), abs=1e-4)
    assert Rate().interval(ALPHA) == (0, 1)


def test_arrays_of_experiments_get_the_bounds_that_each_alone_gets():
    counts = np.array([[90, 10], [50, 50], [0, 0]])
    low, high = bounds([Seen((0.0, 1.0), counts)], ALPHA, 0.0, 1.0)
    for row, pair in zip(counts, zip(low, high, strict=True), strict=True):
        assert Rate(int(row[1]), int(row.sum())).interval(ALPHA) == pytest.approx(pair)
