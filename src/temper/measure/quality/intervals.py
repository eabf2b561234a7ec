"""Intervals of scores: a proportion's by Wilson, a mean's by bootstrap; and those of a paired difference.

Sources: Wilson (1927) for one proportion; Tango (1998), "Equivalence test and confidence interval for the difference
in proportions for the paired-sample design", for two on the same items; Efron's percentile bootstrap; Student's t.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true value lies with the confidence that was asked for."""

    low: float
    high: float
    method: str


def wilson(hits: int, total: int, confidence: float) -> Interval:
    """Of the share `hits` ÷ `total`; `total` is at least 1."""
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = hits / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    width = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return Interval(max(0.0, centre - width), min(1.0, centre + width), "Wilson")


def bootstrap_mean(values: Sequence[float], confidence: float, seed: int) -> Interval | None:
    """Of the mean, by resampling items; None with fewer than 2."""
    import numpy as np

    if len(values) < 2:
        return None
    rng = np.random.default_rng(seed & 0xFFFFFFFF)
    sample = np.asarray(values, np.float64)
    means = sample[rng.integers(0, len(sample), (RESAMPLES, len(sample)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), f"bootstrap over items, {RESAMPLES} resamples")


def tango(gained: int, lost: int, total: int, confidence: float) -> Interval:
    """Of the difference of two shares on the same `total` items, of which B alone got `gained` and A alone `lost`."""
    from scipy.optimize import brentq

    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)

    def excess(difference: float, bound: float) -> float:
        # The score statistic at this difference, less the bound; its variance uses the restricted estimate of p21.
        b = -gained - lost + (2 * total - gained + lost) * difference
        c = -lost * difference * (1 - difference)
        restricted = (math.sqrt(max(0.0, b * b - 8 * total * c)) - b) / (4 * total)
        variance = total * (2 * restricted + difference * (1 - difference))
        return (gained - lost - total * difference) - bound * math.sqrt(max(0.0, variance))

    tiny = 1e-12
    low = -1.0 if lost == total else brentq(excess, -1 + tiny, (gained - lost) / total + tiny, args=(z,))
    high = 1.0 if gained == total else brentq(excess, (gained - lost) / total - tiny, 1 - tiny, args=(-z,))
    return Interval(float(low), float(high), "Tango's score interval for paired proportions")


def paired_mean(differences: Sequence[float], confidence: float, width: float | None) -> Interval | None:
    """Of the mean of paired differences (Student's t); None with fewer than 2.

    Where all differences are alike there is no spread to reckon with, and yet items not seen may differ: with scores
    that lie within `width` of each other, a share of at most 1 − α^(1/n) of them does (α = (1 − confidence)/2).
    """
    from scipy.stats import t

    count = len(differences)
    if count < 2:
        return None
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    if deviation > 0:
        reach = float(t.ppf((1 + confidence) / 2, count - 1)) * deviation / math.sqrt(count)
        return Interval(mean - reach, mean + reach, "paired t")
    if width is None:
        return None
    unseen = 1 - ((1 - confidence) / 2) ** (1 / count)
    return Interval(mean - unseen * width, mean + unseen * width, "no difference in any pair: binomial bound")
