"""Percentiles, and when a sample is large enough to carry one.

A percentile p of n values is carried when, with `confidence`, at least one value lies above the true
percentile: 1 − p^n ≥ confidence. Otherwise the largest value seen may well lie below it, and any figure would
be too good. At 95 %: P50 needs 5 values, P90 29, P95 59, P99 299. At 99 %, for claims: 7, 44, 90, 459.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

REPORT_CONFIDENCE = 0.95
"""For figures in a report."""
CLAIM_CONFIDENCE = 0.99
"""For saying that an SLO is met."""


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of `ordered` (ascending, not empty) do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def values_needed(percent: float, confidence: float = REPORT_CONFIDENCE) -> int:
    """How many values carry this percentile."""
    return math.ceil(math.log(1 - confidence) / math.log(percent / 100) - 1e-9)
