"""When to stop measuring a trial: paired blocks against the incumbent, losers let go early.

A trial is measured in pairs, the same load on candidate and incumbent within a minute of each other, so that a slow
minute slows both. After each pair the candidate goes on only while it may still be better than the best so far.
Pure arithmetic on log-ratios; Source of the scheme: Maron & Moore, "Hoeffding races", NIPS 1994, with a normal bound
from the pooled variance in place of Hoeffding's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEAST_NOISE = 0.005
"""No measurement of a machine is taken to be more exact: half a percent."""
FIRST_NOISE = 0.05
"""What is assumed before anything was repeated."""
BOUND = 1.64
"""Standard errors that a candidate may lie behind and still be in the race: 95 % of a normal distribution."""

CURSED_BOUND = 2.5
"""The same against a point that leads a race of many, whose mean is partly luck."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A point in the race."""

    gain: float
    """Mean log-ratio to the incumbent; above 0 is better."""
    num_pairs: int


def noise(groups: Iterable[Sequence[float]]) -> float:
    """Standard deviation of one pair's gain, pooled over `groups` of pairs of the same point."""
    squares, degrees = 0.0, 0
    for gains in groups:
        if len(gains) > 1:
            centre = statistics.fmean(gains)
            squares += sum((gain - centre) ** 2 for gain in gains)
            degrees += len(gains) - 1
    return max(LEAST_NOISE, math.sqrt(squares / degrees)) if degrees else FIRST_NOISE


def is_beaten(gains: Sequence[float], best: Standing | None, deviation: float) -> bool:
    """Whether a candidate with these gains is behind the best, or behind the incumbent, beyond what noise explains."""
    if not gains:
        return False
    mean = statistics.fmean(gains)
    behind_incumbent = mean + BOUND * deviation / math.sqrt(len(gains)) < 0
    if best is None:
        return behind_incumbent
    error = deviation * math.sqrt(1 / len(gains) + 1 / best.num_pairs)
    return behind_incumbent or mean + BOUND * error < best.gain


def is_as_good(gains: Sequence[float], leader: Sequence[float], deviation: float) -> bool:
    """Whether gains may be as good as the leader's, which are partly luck: they were the best of many."""
    if not gains or not leader:
        return False
    error = deviation * math.sqrt(1 / len(gains) + 1 / len(leader))
    return statistics.fmean(gains) + CURSED_BOUND * error >= statistics.fmean(leader)
