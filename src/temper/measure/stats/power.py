"""Before measuring: how many units a comparison needs, and what it would find with those one has.

Effects of latencies are given as B/A − 1 and tested on logs, with the spread of the logs; so a spread is about the
coefficient of variation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from temper.errors import Invalid

Sides = Literal[1, 2]
MOST_UNITS = 10**9


def paired_power(effect: float, spread: float, num_pairs: int, alpha: float = 0.05, sides: Sides = 2) -> float:
    """Chance that a paired t-test on logs finds `effect`; `spread` is that of the log-ratios of pairs."""
    return _power(math.log1p(effect) / spread * math.sqrt(num_pairs), num_pairs - 1, alpha, sides)


def unpaired_power(
    effect: float, spread: float, num_a: int, num_b: int, alpha: float = 0.05, sides: Sides = 2
) -> float:
    """Chance that a t-test of two arms on logs finds `effect`; `spread` is that of the logs within an arm."""
    return _power(math.log1p(effect) / spread / math.sqrt(1 / num_a + 1 / num_b), num_a + num_b - 2, alpha, sides)


def pairs_needed(effect: float, spread: float, power: float = 0.8, alpha: float = 0.05, sides: Sides = 2) -> int:
    """Pairs with which a paired t-test on logs has this power.

    Raises:
        Invalid: there is no effect to find, or more than a billion units would be needed.
    """
    return _fewest(lambda num: paired_power(effect, spread, num, alpha, sides), power, effect)


def units_needed(effect: float, spread: float, power: float = 0.8, alpha: float = 0.05, sides: Sides = 2) -> int:
    """Units in each of two equal arms with which a t-test on logs has this power.

    Raises:
        Invalid: as `pairs_needed`.
    """
    return _fewest(lambda num: unpaired_power(effect, spread, num, num, alpha, sides), power, effect)


def rates_needed(
    rate: float, margin: float, power: float = 0.8, alpha: float = 0.05, discordant: float | None = None
) -> int:
    """Items in each arm to show that a rate is not `margin` worse, if it is in truth the same (one-sided).

    With `discordant`, the share of items on which the arms differ, both arms are asked the same items: 2 points at
    90 % accuracy take 2,783 items an arm unpaired, and 928 paired with 6 % discordant.

    Raises:
        Invalid: the margin is not above 0.
    """
    if not margin > 0:
        raise Invalid(f"a margin must be above 0, not {margin:g}", param="margin")
    from scipy.stats import norm

    variance = 2 * rate * (1 - rate) if discordant is None else discordant
    return math.ceil((float(norm.ppf(1 - alpha)) + float(norm.ppf(power))) ** 2 * variance / margin**2)


def clean_units_needed(limit: float, confidence: float = 0.95) -> int:
    """Units without one failure that show, one-sided, that at most `limit` fail: the rule of three, exactly."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-limit) - 1e-9)


def _power(shift: float, freedom: float, alpha: float, sides: Sides) -> float:
    from scipy.stats import nct, t

    bar = float(t.ppf(1 - alpha / sides, freedom))
    upper = float(nct.sf(bar, freedom, abs(shift)))
    return upper + (float(nct.cdf(-bar, freedom, abs(shift))) if sides == 2 else 0.0)


def _fewest(power_of: Callable[[int], float], power: float, effect: float) -> int:
    """By doubling and halving."""
    if effect == 0:
        raise Invalid("no sample finds an effect of 0", param="effect")
    high = 2
    while power_of(high) < power:
        high *= 2
        if high > MOST_UNITS:
            raise Invalid(f"an effect of {effect:g} needs more than a billion units", param="effect")
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= power else (middle + 1, high)
    return low
