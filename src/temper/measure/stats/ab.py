"""Two arms compared once, at a size fixed before: Student's paired t, Welch's t, Mann–Whitney, CUPED.

Latencies are compared on logs: effects multiply there, and the spread does not grow with the mean. Units must be
independent: an engine start × a block of time, not a request (requests of one run are autocorrelated). Whoever looks
again and again takes `sequential`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from temper.errors import Invalid
from temper.measure.stats.estimate import Estimate

CONFIDENCE = 0.95
FEWEST_PAIRS = 3
LARGEST_LOG = 700.0
"""Beyond this a ratio is no finite float; an interval that wide says nothing anyway."""


def paired(
    a: Sequence[float],
    b: Sequence[float],
    *,
    log: bool = True,
    confidence: float = CONFIDENCE,
    covariate: Sequence[float] | None = None,
) -> Estimate:
    """Student's t on the differences; `a[i]` and `b[i]` were measured under the same conditions.

    With `log` the effect is the geometric mean of b/a, less 1, else the mean of b − a. Its size is Cohen's d_z, and
    Hedges' correction of it for small samples. A `covariate` (one number a pair, known before and not made by
    either arm, such as the order in which the two were measured) is regressed out around its mean, at the price of one
    degree of freedom.

    Raises:
        Invalid: lengths differ, or a value is not above 0 where logs are taken.
    """
    if len(a) != len(b):
        raise Invalid(f"pairs need as many values of A as of B, not {len(a)} and {len(b)}", param="b")
    left, right = _scale(a, log), _scale(b, log)
    differences = right - left
    method = f"paired t on {'logs' if log else 'differences'}"
    lost = 1
    if covariate is not None and len(differences) > FEWEST_PAIRS:
        differences, lost, method = residuals(differences, covariate), 2, f"{method}, CUPED"
    found = _student(differences, lost, method, log, confidence)
    return replace(found, evidence={"mean_a": _mean(a), "mean_b": _mean(b), **found.evidence})


def welch(a: Sequence[float], b: Sequence[float], *, log: bool = True, confidence: float = CONFIDENCE) -> Estimate:
    """Welch's t for two independent arms of unequal spread; with `log` the effect is a ratio of geometric means.

    Its size is Hedges' g: the difference over the pooled spread, corrected for small samples.

    Raises:
        Invalid: a value is not above 0 where logs are taken.
    """
    left, right = _scale(a, log), _scale(b, log)
    method = f"Welch's t on {'logs' if log else 'values'}"
    evidence: dict[str, Any] = {"mean_a": _mean(a), "mean_b": _mean(b), "num_a": len(a), "num_b": len(b)}
    fewest = min(len(a), len(b))
    if fewest == 0:
        return Estimate(None, None, confidence, method, 0, reason="an arm has no values", evidence=evidence)
    centre = float(right.mean() - left.mean())
    if fewest < 2:
        return Estimate(_effect(centre, log), None, confidence, method, fewest, evidence=evidence,
                        reason="each arm needs 2 units for an interval")  # fmt: skip
    part_a, part_b = left.var(ddof=1) / len(a), right.var(ddof=1) / len(b)
    error = math.sqrt(part_a + part_b)
    freedom = len(a) + len(b) - 2.0
    if error > 0:
        freedom = float((part_a + part_b) ** 2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1)))
    pooled = ((len(a) - 1) * left.var(ddof=1) + (len(b) - 1) * right.var(ddof=1)) / (len(a) + len(b) - 2)
    if pooled > 0:
        evidence["hedges_g"] = _hedges(len(a) + len(b) - 2) * centre / math.sqrt(pooled)
    return from_t(centre, error, freedom, method, log, confidence, fewest, evidence)


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """A second opinion that no single outlier can sway: the two-sided p-value, and the chance that a value of B is
    above one of A (ties count half; 0.5: no difference).

    Raises:
        Invalid: an arm has no values.
    """
    if not len(a) or not len(b):
        raise Invalid("Mann–Whitney needs values in both arms", param="a" if not len(a) else "b")
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(b, a, alternative="two-sided")
    return {"p_value": float(found.pvalue), "chance_b_above_a": float(found.statistic) / (len(a) * len(b))}


def residuals(values: Any, covariate: Any) -> NDArray[Any]:
    """Values less what the covariate explains of them; their mean stays where it was.

    For two arms, take them together and the covariate's overall mean: CUPED of Deng, Xu, Kohavi & Walker, Improving
    the sensitivity of online controlled experiments by utilizing pre-experiment data, WSDM 2013. The covariate must
    not depend on the arm: what the incumbent took for the same request, recorded before, is a good one.

    Raises:
        Invalid: lengths differ.
    """
    outcome, known = np.asarray(values, dtype=float), np.asarray(covariate, dtype=float)
    if outcome.shape != known.shape:
        raise Invalid(
            f"each value needs its covariate, but there are {outcome.size} and {known.size}", param="covariate"
        )
    known = known - known.mean()
    spread = float(known @ known)
    return outcome - (known * float(known @ outcome) / spread if spread > 0 else 0.0)


def cuped(
    a: Sequence[float], covariate_a: Sequence[float], b: Sequence[float], covariate_b: Sequence[float],
    *, log: bool = True, confidence: float = CONFIDENCE,
) -> Estimate:  # fmt: skip
    """Welch's t after CUPED: two independent arms, each unit with a figure known before (see `residuals`).

    The slope is that within arms, so that an effect of the arm is not explained away.

    Raises:
        Invalid: lengths differ, or a value is not above 0 where logs are taken.
    """
    if len(a) != len(covariate_a) or len(b) != len(covariate_b):
        raise Invalid("each value needs its covariate", param="covariate_a")
    plain = welch(a, b, log=log, confidence=confidence)
    if min(len(a), len(b)) < FEWEST_PAIRS:
        return plain
    left, right = _scale(a, log), _scale(b, log)
    known_a, known_b = _scale(covariate_a, log), _scale(covariate_b, log)
    within_a, within_b = known_a - known_a.mean(), known_b - known_b.mean()
    spread = float(within_a @ within_a + within_b @ within_b)
    if spread == 0:
        return plain
    slope = float(within_a @ left + within_b @ right) / spread
    centre = float(np.concatenate([known_a, known_b]).mean())
    adjusted = welch(
        (left - slope * (known_a - centre)).tolist(), (right - slope * (known_b - centre)).tolist(),
        log=False, confidence=confidence,
    )  # fmt: skip
    assert adjusted.effect is not None
    assert adjusted.interval is not None
    low, high = adjusted.interval
    assert plain.interval is not None
    before = math.log1p(plain.interval[1]) - math.log1p(plain.interval[0]) if log else np.ptp(plain.interval)
    removed = 1 - (high - low) ** 2 / float(before) ** 2
    return replace(
        adjusted,
        effect=_effect(adjusted.effect, log),
        interval=(_effect(low, log), _effect(high, log)),
        method=f"{plain.method}, CUPED",
        evidence={**plain.evidence, "hedges_g": adjusted.evidence.get("hedges_g"), "variance_removed": removed},
    )


def from_t(
    centre: float, error: float, freedom: float, method: str, log: bool, confidence: float, num_units: int,
    evidence: dict[str, Any],
) -> Estimate:  # fmt: skip
    """The estimate of a statistic with a standard error and Student's t around it."""
    from scipy.stats import t

    half = float(t.ppf((1 + confidence) / 2, freedom)) * error
    if error > 0:
        p_higher, p_lower = float(t.sf(centre / error, freedom)), float(t.cdf(centre / error, freedom))
    else:  # every unit says exactly the same
        p_higher, p_lower = 0.0 if centre > 0 else 1.0, 0.0 if centre < 0 else 1.0
    return Estimate(
        effect=_effect(centre, log),
        interval=(_effect(centre - half, log), _effect(centre + half, log)),
        confidence=confidence,
        method=method,
        num_units=num_units,
        p_higher=p_higher,
        p_lower=p_lower,
        evidence={**evidence, "p_value": min(1.0, 2 * min(p_higher, p_lower)), "standard_error": error},
    )


def _student(differences: NDArray[Any], lost: int, method: str, log: bool, confidence: float) -> Estimate:
    """One-sample t; `lost` degrees of freedom went into estimates."""
    num = len(differences)
    if num == 0:
        return Estimate(None, None, confidence, method, 0, reason="there are no pairs")
    centre = float(differences.mean())
    if num < FEWEST_PAIRS:
        return Estimate(_effect(centre, log), None, confidence, method, num,
                        reason=f"an interval needs {FEWEST_PAIRS} pairs, but there are {num}")  # fmt: skip
    freedom = num - lost
    spread = math.sqrt(float(((differences - centre) ** 2).sum()) / freedom)
    evidence: dict[str, Any] = {}
    if spread > 0:
        evidence = {"cohens_d_z": centre / spread, "hedges_g_z": _hedges(freedom) * centre / spread}
    return from_t(centre, spread / math.sqrt(num), freedom, method, log, confidence, num, evidence)


def _hedges(freedom: float) -> float:
    """Hedges' correction for the bias of a standardised effect (Hedges 1981, the usual approximation)."""
    return 1 - 3 / (4 * freedom - 1)


def _scale(values: Sequence[float], log: bool) -> NDArray[Any]:
    found = np.asarray(values, dtype=float)
    if log and not (found > 0).all():
        raise Invalid(f"logs need values above 0, but the least is {found.min():g}", param="log",
                      hint="compare differences: log=False")  # fmt: skip
    return np.log(found) if log else found


def _effect(centre: float, log: bool) -> float:
    return math.expm1(min(centre, LARGEST_LOG)) if log else centre


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
