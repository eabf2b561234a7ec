"""How much traffic a rollout needs to find a difference: planned before it begins, at the share of its last comparison.

What is planned is enough for one look at the end; looking after every request only finds it earlier. The fixed-sample
test beside it is what one would need without looking: less, but all of it, always.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from temper.fleet.judge import PLANNED_UNITS
from temper.fleet.plan import RATES, Metric, Plan
from temper.measure.stats.sequential.bets import Seen, log_wealth
from temper.measure.stats.sequential.means import difference_half_width
from temper.measure.stats.sequential.rates import scores

POWER = 0.97
MOST = 10_000_000


def units_needed(plan: Plan, metric: Metric, effect: float, *, spread: float = 0.0, power: float = POWER) -> int:
    """Units of both arms, over all steps, after which harm of size `effect` is shown with probability `power`.

    Args:
        plan: its steps, alpha and guardrails.
        metric: a rate (the control's taken as 0; `effect` is the candidate's), or a mean of logs.
        effect: B/A − 1, or the candidate's rate.
        spread: standard deviation of the log of one value; means only.
        power: the chance of finding it.
    """
    alpha, share = plan.alphas[metric], plan.steps[-2]
    found = _rate_found if metric in RATES else _mean_found
    earlier = plan.min_requests * (len(plan.steps) - 2)
    return earlier + _least(lambda num: found(num, share, effect, spread, alpha, power))


def fixed_units_needed(plan: Plan, metric: Metric, effect: float, *, spread: float = 0.0, power: float = POWER) -> int:
    """The same for a test of fixed size at the same alpha: two-sided z on logs, or Fisher's exact test on rates."""
    from scipy.stats import binom, norm

    alpha, share = plan.alphas[metric], plan.steps[-2]
    if metric not in RATES:
        z = float(norm.ppf(1 - alpha / 2) + norm.ppf(power))
        return math.ceil((z * spread / math.log1p(effect)) ** 2 / (share * (1 - share)))

    def enough(num: int) -> bool:
        hits = binom.ppf(1 - power, round(num * share), effect)
        return bool(hits > 0 and share**hits <= alpha / 2)  # given that many hits and none in A, all fell to B

    return _least(enough)


def _rate_found(num: int, share: float, effect: float, spread: float, alpha: float, power: float) -> bool:
    from scipy.stats import binom

    in_b = round(num * share)
    hits = float(binom.ppf(1 - power, in_b, effect))
    counts = np.array([num - in_b, 0, in_b - hits, hits])
    return bool(log_wealth([Seen(scores(share, 0.0), counts)], 0.0) >= math.log(2 / alpha))


def _mean_found(num: int, share: float, effect: float, spread: float, alpha: float, power: float) -> bool:
    from scipy.stats import norm

    in_b = max(2, round(num * share))
    in_a = max(2, num - in_b)
    error = spread * math.sqrt(1 / in_a + 1 / in_b)
    half = difference_half_width(in_a, spread**2, in_b, spread**2, alpha, planned_units=PLANNED_UNITS)
    return bool(float(half) + norm.ppf(power) * error <= math.log1p(effect))


def _least(enough: Callable[[int], bool]) -> int:
    """The smallest number that is enough, by doubling and halving."""
    high = 16
    while not enough(high) and high < MOST:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
