from __future__ import annotations

import math

import numpy as np
import pytest

from temper.measure.stats.proportion import lower_bound, upper_bound
from temper.measure.stats.sequential.bets import FRACTIONS, Seen, bounds, log_wealth

COINS = (0.0, 1.0)


def test_wealth_is_what_the_gamblers_would_have_won_one_bet_after_the_other():
    values, mean = [1.0, 0.0, 0.0, 1.0, 1.0], 0.3
    wealth = np.ones(len(FRACTIONS))
    for value in values:
        wealth *= 1 - FRACTIONS + FRACTIONS * value / mean
    found = log_wealth([Seen(COINS, np.array([2, 3]))], mean)
    assert float(found) == pytest.approx(math.log(wealth.mean()))


def test_the_mean_wealth_of_a_fair_game_is_1():
    """By every outcome of 12 tosses, weighted by its chance: the martingale itself, without simulation."""
    total = sum(
        math.comb(12, hits) * 0.2**hits * 0.8 ** (12 - hits)
        * math.exp(float(log_wealth([Seen(COINS, np.array([12 - hits, hits]))], 0.2)))
        for hits in range(13)
    )  # fmt: skip
    assert total == pytest.approx(1.0)


def test_values_of_two_times_with_other_limits_are_one_bet():
    apart = [Seen((-2.0, 0.0, 2.0), np.array([1, 5, 3])), Seen((-1.0, 0.0, 4.0), np.array([2, 2, 2]))]
    by_hand = sum(
        count * np.log1p(FRACTIONS * ((value - low) / (0.1 - low) - 1))
        for low, pairs in ((-2.0, {-2: 1, 0: 5, 2: 3}), (-1.0, {-1: 2, 0: 2, 4: 2}))
        for value, count in pairs.items()
    )
    assert float(log_wealth(apart, 0.1)) == pytest.approx(math.log(np.exp(by_hand).mean()))


@pytest.mark.parametrize(("hits", "total"), [(50, 100), (5, 100), (500, 10_000), (100, 10_000)])
def test_looking_at_all_times_costs_less_than_twice_the_width_of_looking_once(hits, total):
    low, high = bounds([Seen(COINS, np.array([total - hits, hits]))], 0.05, 0.0, 1.0)
    exact = lower_bound(hits, total, 0.975), upper_bound(hits, total, 0.975)
    assert low < exact[0] < exact[1] < high
    assert float(high - low) < 1.95 * (exact[1] - exact[0])
