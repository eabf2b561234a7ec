"""Ratios of paired measurements: rounds of one interleaved run, compared round by round on a log scale."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ratio:
    """B ÷ A over paired rounds."""

    median: float
    low: float
    """Lowest of the rounds."""
    high: float
    rounds: int
    effect: float
    """Geometric mean of the ratios, minus 1."""
    interval: tuple[float, float] | None
    """Of the effect, at `confidence` (Student's t on the logs); None with fewer than 3 rounds."""
    confidence: float


def paired(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Ratio | None:
    """B against A; `a[i]` and `b[i]` come from the same round. None where no pair is above zero."""
    logs = [math.log(y / x) for x, y in zip(a, b, strict=True) if x > 0 and y > 0]
    if not logs:
        return None
    ratios = [math.exp(value) for value in logs]
    centre = statistics.fmean(logs)
    interval = None
    if len(logs) >= 3:
        from scipy.stats import t

        width = float(t.ppf((1 + confidence) / 2, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
        interval = (math.expm1(centre - width), math.expm1(centre + width))
    return Ratio(
        statistics.median(ratios), min(ratios), max(ratios), len(logs), math.expm1(centre), interval, confidence
    )
