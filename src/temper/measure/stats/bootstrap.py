"""Percentiles of two arms compared by a block bootstrap: no formula gives their spread under autocorrelation.

The stationary bootstrap of Politis & Romano (JASA 89, 1994) draws stretches of geometric length, so that neighbours in
time stay together. Its standard error, on logs, goes with Student's t on as many degrees of freedom as there are
stretches less one; plain bootstrap percentiles are too narrow at such sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from temper.errors import Invalid
from temper.measure.stats.ab import CONFIDENCE, from_t
from temper.measure.stats.estimate import Estimate
from temper.measure.stats.percentile import values_needed

DRAWS = 1000
SPAN = 5.0
"""Stretches are `SPAN`·n^(1/3) values long on average: the rate that is best for a variance, and a length that holds
autocorrelation of 0.7 at a few hundred values."""


def percentile_ratio(
    a: Sequence[float],
    b: Sequence[float],
    percent: float,
    *,
    block: float | None = None,
    confidence: float = CONFIDENCE,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Effect of B on the `percent` percentile, B/A − 1; values of each arm in the order in which they were measured.

    `block` is the mean length of a stretch in values; None: `SPAN`·n^(1/3).

    Raises:
        Invalid: a value is not above 0.
    """
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if (left.size and left.min() <= 0) or (right.size and right.min() <= 0):
        raise Invalid("a ratio of percentiles needs values above 0", param="a")
    method = f"stationary block bootstrap of P{percent:g}, t on logs"
    fewest, needed = min(len(left), len(right)), values_needed(percent)
    if fewest < needed:
        return Estimate(None, None, confidence, method, 0, reason=f"P{percent:g} needs {needed} values, not {fewest}")
    rng = np.random.default_rng(seed)
    error, stretches = 0.0, math.inf
    for values in (left, right):
        length = block or SPAN * len(values) ** (1 / 3)
        found = np.log(_percentile(values[_indices(len(values), length, draws, rng)], percent))
        error += float(found.var(ddof=1)) * len(values) / max(1.0, len(values) - length)  # as n/(n − 1), of stretches
        stretches = min(stretches, len(values) / length)
    figures = [float(_percentile(values[None], percent)[0]) for values in (left, right)]
    centre = math.log(figures[1] / figures[0])
    evidence = {"a": figures[0], "b": figures[1], "draws": draws, "seed": seed}
    return from_t(centre, math.sqrt(error), max(1.0, stretches - 1), method, True, confidence, int(stretches), evidence)


def _percentile(rows: NDArray[Any], percent: float) -> NDArray[Any]:
    """Nearest rank along the last axis, as everywhere in this house."""
    rank = max(0, math.ceil(rows.shape[-1] * percent / 100) - 1)
    found: NDArray[Any] = np.partition(rows, rank, axis=-1)[..., rank]
    return found


def _indices(num: int, length: float, draws: int, rng: np.random.Generator) -> NDArray[Any]:
    """(draws, num): stretches that begin anywhere, go on round the end, and end with chance 1/length at each value."""
    begins = rng.random((draws, num)) < 1 / length
    begins[:, 0] = True
    at = np.arange(num)
    since = at - np.maximum.accumulate(np.where(begins, at, 0), axis=1)
    starts = rng.integers(0, num, (draws, num))
    first = np.take_along_axis(starts, at - since, axis=1)
    found: NDArray[Any] = (first + since) % num
    return found
