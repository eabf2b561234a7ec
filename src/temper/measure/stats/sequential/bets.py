"""Diversified bets on a bounded mean: the one martingale under the sequences for rates, differences and quantiles.

Somebody bets on each value x ∈ [low, high] that the mean is above m, always the same fraction f of what a bet may
be: her wealth is multiplied by 1 − f + f·(x − low)/(m − low). If the mean is m or below, that wealth is a
non-negative supermartingale, so it reaches 1/α with probability α at most, however often one looks (Ville). The mean
of the wealth of several such gamblers, one per fraction, is one too: "diversified Kelly betting" of Waudby-Smith &
Ramdas, Estimating means of bounded random variables by betting, JRSS-B 86(1), 2024, appendix B.

As no fraction changes, wealth depends on how often each value was seen and not on the order: the state of an
experiment is its counts, which any store keeps. Wealth falls with m, so what is not rejected is an interval.

Everything works on arrays, so thousands of simulated experiments run at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FRACTIONS: Array = 0.75 * 0.5 ** np.arange(12)
"""From bold (few values, a gross difference) to timid (a million values, a difference in the third digit)."""
POINTS, ROUNDS = 24, 5
"""A bound is narrowed by so many points at once, so often: to 10⁻⁷ of the range, in few calls of numpy."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen while the values had these bounds."""

    values: tuple[float, ...]
    """Every value there can be; the lowest and the highest bound the bets."""
    counts: Array
    """(..., len(values)): how often each was seen, per experiment."""


def log_wealth(groups: Sequence[Seen], mean: Any) -> Array:
    """Log of the wealth of who bets that the mean is above `mean` (a number or an array of one per experiment).

    It is at least log(1/α) with probability α at most, over all looks together, if the mean is `mean` or below. All
    groups have the same leading shape.
    """
    values = np.array([value for group in groups for value in group.values])
    lows = np.array([min(group.values) for group in groups for _ in group.values])
    counts = np.concatenate([np.asarray(group.counts, dtype=float) for group in groups], axis=-1)
    room = np.maximum(np.asarray(mean, dtype=float)[..., None] - lows, 1e-12)
    growth = np.log1p(FRACTIONS * ((values - lows) / room - 1)[..., None])  # (..., values, fractions)
    total = counts @ growth if growth.ndim == 2 else (counts[..., None, :] @ growth)[..., 0, :]
    top = total.max(axis=-1)
    wealth: Array = top + np.log(np.exp(total - top[..., None]).mean(axis=-1))
    return wealth


def mirrored(groups: Sequence[Seen]) -> list[Seen]:
    """The same values with the other sign: who bets that the mean is below m bets that its mirror is above −m."""
    return [Seen(tuple(-value for value in group.values), group.counts) for group in groups]


def bounds(groups: Sequence[Seen], alpha: float, low: float, high: float) -> tuple[Array, Array]:
    """The confidence sequence at this look: means within [low, high] that neither gambler has refuted.

    Each side has half of `alpha`. With no data it is [low, high].
    """
    return _lower(groups, alpha / 2, low, high), -_lower(mirrored(groups), alpha / 2, -high, -low)


def _lower(groups: Sequence[Seen], alpha: float, low: float, high: float) -> Array:
    """The largest mean that is refuted from below; `low` where none is."""
    shape = np.broadcast_shapes(*(group.counts.shape[:-1] for group in groups)) if groups else ()
    beside = [Seen(group.values, group.counts[..., None, :]) for group in groups]  # one axis more, for the points
    refuted: Array = np.full(shape, low)
    width = high - low
    for _ in range(ROUNDS):
        width /= POINTS + 1
        points = refuted[..., None] + width * np.arange(1, POINTS + 1)
        rejected = (log_wealth(beside, points) >= -np.log(alpha)).sum(axis=-1)  # wealth falls: the first ones
        refuted = refuted + width * rejected
    return refuted
