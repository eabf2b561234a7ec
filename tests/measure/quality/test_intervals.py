from __future__ import annotations

import math
import random

import pytest
from scipy.optimize import minimize_scalar

from temper.measure.quality.intervals import bootstrap_mean, paired_mean, tango, wilson


def test_wilson_as_printed():
    # Newcombe (1998), table I: 81 of 263, and none of 20.
    found = wilson(81, 263, 0.95)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20, 0.95).high == pytest.approx(0.1611, abs=1e-4)


@pytest.mark.parametrize(("gained", "lost", "total"), [(0, 1, 44), (3, 9, 60), (12, 5, 90), (7, 0, 30)])
def test_at_both_ends_the_score_statistic_is_the_normal_quantile(gained, lost, total):
    """The restricted estimate found by plain maximisation of the likelihood, not by Tango's formula."""
    found = tango(gained, lost, total, 0.95)
    for difference, z in ((found.low, 1.959964), (found.high, -1.959964)):

        def loss(q: float, difference: float = difference) -> float:
            p = q + difference
            rest = total - gained - lost
            terms = ((gained, p), (lost, q), (rest, 1 - p - q))
            return -sum(count * math.log(max(share, 1e-300)) for count, share in terms if count)

        bounds = (max(0.0, -difference), (1 - difference) / 2)
        q = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        deviation = math.sqrt(total * (2 * q + difference - difference**2))
        assert (gained - lost - total * difference) / deviation == pytest.approx(z, abs=2e-3)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (10, 0), (0, 10), (10, 10)])
def test_tango_holds_at_the_edges(gained, lost):
    found = tango(gained, lost, 10 if gained + lost <= 10 else 20, 0.95)
    assert -1 <= found.low <= found.high <= 1
    assert found.low < (gained - lost) / 20 + 1e-9 or lost == 10


def test_tango_covers():
    rng = random.Random(2)
    total, p_gain, p_loss, covered, runs = 80, 0.03, 0.06, 0, 400
    for _ in range(runs):
        draws = [rng.random() for _ in range(total)]
        gained, lost = sum(x < p_gain for x in draws), sum(p_gain <= x < p_gain + p_loss for x in draws)
        found = tango(gained, lost, total, 0.95)
        covered += found.low <= p_gain - p_loss <= found.high
    assert covered >= 365  # 95 % of 400 less its 99.7 % bound


def test_the_bootstrap_is_repeatable_and_holds_the_mean():
    values = [random.Random(1).gauss(0, 1) for _ in range(50)]
    first = bootstrap_mean(values, 0.95, 3)
    assert first == bootstrap_mean(values, 0.95, 3)
    assert first is not None
    assert first.low <= sum(values) / 50 <= first.high
    assert bootstrap_mean([1.0], 0.95, 3) is None


def test_no_difference_in_any_pair_is_no_certainty():
    found = paired_mean([0.0] * 40, 0.95, 1.0)
    assert found is not None
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 40))
    assert paired_mean([0.0] * 40, 0.95, None) is None
    assert paired_mean([0.1], 0.95, 1.0) is None
