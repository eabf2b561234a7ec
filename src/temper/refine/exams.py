"""Exams that several models sat, put side by side: what each gained over the base, and how much of it was kept.

Pairs items by their ids. Pure arithmetic on scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from temper.measure.quality.intervals import tango

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 4000


def exam_table(
    exams: Mapping[str, Mapping[str, Any]],
    suites: Sequence[str],
    result: str,
    base: str = "base",
    taught: str = "teach",
) -> dict[str, Any]:
    """`{"rows", "kept"}`: a row for each model and suite with its gain over the base (Tango's interval for paired
    shares), and for each suite the share of the taught model's gain that `result` keeps (bootstrap over items).

    `exams[model][suite]` has `value`, `interval` and `items`, scores of 0 or 1 by id.
    """
    rows = []
    for suite in suites:
        for model, sat in exams.items():
            row = {"model": model, "suite": suite, "value": sat[suite]["value"], "interval": sat[suite]["interval"],
                   "truncation_rate": sat[suite]["truncation_rate"], "num_items": len(sat[suite]["items"])}  # fmt: skip
            if model != base:
                row |= _gain(exams[base][suite]["items"], sat[suite]["items"])
            rows.append(row)
    kept = {suite: _kept(exams, suite, base, taught, result) for suite in suites} if result != taught else {}
    return {"confidence": CONFIDENCE, "rows": rows, "kept": kept}


def _paired(*sides: Mapping[str, float | None]) -> NDArray[np.float64]:
    """[items, sides] of the items that all sides were scored on."""
    ids = [name for name in sides[0] if all(side.get(name) is not None for side in sides)]
    return np.array([[side[name] for side in sides] for name in ids], np.float64).reshape(len(ids), len(sides))


def _gain(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> dict[str, Any]:
    pairs = _paired(before, after)
    if not len(pairs):
        return {"gain": None, "gain_interval": None}
    gained, lost = int((pairs[:, 1] > pairs[:, 0]).sum()), int((pairs[:, 1] < pairs[:, 0]).sum())
    found = tango(gained, lost, len(pairs), CONFIDENCE)
    return {"gain": (gained - lost) / len(pairs), "gain_interval": [found.low, found.high], "method": found.method}


def _kept(
    exams: Mapping[str, Mapping[str, Any]], suite: str, base: str, taught: str, result: str
) -> dict[str, Any] | None:
    """(result − base) ÷ (taught − base); None where nothing was gained."""
    scores = _paired(*(exams[name][suite]["items"] for name in (base, taught, result)))
    if not len(scores):
        return None
    low, high, small = scores.mean(axis=0)
    if high <= low:
        return None
    sample = np.random.default_rng(0).integers(0, len(scores), (RESAMPLES, len(scores)))
    means = scores[sample].mean(axis=1)
    gains = means[:, 1] - means[:, 0]
    shares = (means[:, 2] - means[:, 0])[gains > 0] / gains[gains > 0]
    ends = np.quantile(shares, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"share": float((small - low) / (high - low)), "interval": [float(end) for end in ends],
            "method": f"bootstrap over items, {RESAMPLES} resamples"}  # fmt: skip
