"""Is a finalist better? The tests behind a study's verdict, on independent units.

A unit is one engine start on each side with an ABBA of blocks in it, reduced to one log-ratio: requests of a run, and
runs of a start, are not independent. Superiority on the objective is tested one-sided, and Holm's procedure over the
finalists keeps the chance of any false winner at alpha.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from temper.measure.stats.ab import paired
from temper.measure.stats.estimate import Estimate
from temper.measure.stats.proportion import at_most, lower_bound, upper_bound
from temper.measure.stats.verdict import Outcome, Verdict
from temper.tuner.objective import Limit, Objective


def estimate(gains: Sequence[float], confidence: float) -> Estimate:
    """The mean of `gains`, one a unit, each already a log-ratio of the two sides; its interval two-sided."""
    return paired([0.0] * len(gains), gains, log=False, confidence=confidence)


def p_value(gains: Sequence[float]) -> float:
    """One-sided p of "the mean gain is above 0"; 1 with too few units."""
    found = estimate(gains, 0.95).p_higher
    return 1.0 if found is None else found


def interval_of(gains: Sequence[float], confidence: float) -> tuple[float, float] | None:
    """Two-sided interval of the mean gain; None with too few units."""
    return estimate(gains, confidence).interval


def superiority(objective: Objective, gains: Sequence[float], *, proven: bool, alpha: float) -> Verdict:
    """The verdict on "the finalist is better", where `proven` is Holm's word on it."""
    confidence = 1 - alpha
    found = interval_of(gains, confidence)
    effect, interval = None, None
    if gains:
        effect = objective.effect(statistics.fmean(gains))
    if found is not None:
        interval = tuple(sorted(objective.effect(end) for end in found))
    outcome: Outcome = "pass" if proven else "fail" if found is not None and found[1] <= 0 else "inconclusive"
    reason = {
        "pass": "better beyond what chance explains, all finalists counted",
        "fail": "not better: even the better end of the interval is no gain",
        "inconclusive": "the interval holds no change: more units are needed to tell",
    }[outcome]
    return Verdict(
        verdict=outcome,
        metric=objective.metric,
        better=objective.better,
        claim=f"the finalist's {objective.metric} is {objective.better}",
        effect=effect,
        interval=None if interval is None else (interval[0], interval[1]),
        confidence=confidence,
        method="paired t on logs, one unit an engine start, Holm over finalists",
        reason=reason,
        num_units=len(gains),
        evidence={"p_value": p_value(gains), "gains": list(gains)},
    )


def same_length(ratios: Sequence[float], margin: float, alpha: float) -> Verdict:
    """Whether answers are as long as before: both one-sided tests at `alpha` within ±log(1 + margin) (TOST).

    `ratios` are log-ratios of mean answer lengths, one a unit. Source: Schuirmann, J. Pharmacokin. 15 (1987).
    """
    bound = math.log1p(margin)
    found = interval_of(ratios, 1 - 2 * alpha)
    outcome: Outcome = "inconclusive"
    if found is not None:
        outcome = "pass" if -bound < found[0] and found[1] < bound else "inconclusive"
        outcome = "fail" if found[1] < -bound or found[0] > bound else outcome
    reason = {
        "pass": f"answers are as long as before, within {margin:.0%}",
        "fail": f"answers got longer or shorter by more than {margin:.0%}",
        "inconclusive": f"a change of {margin:.0%} in length cannot be excluded",
    }[outcome]
    return Verdict(
        verdict=outcome,
        metric="answer_tokens",
        better="higher",
        claim=f"answers are as long as the incumbent's within {margin:.0%}",
        effect=math.expm1(statistics.fmean(ratios)) if ratios else None,
        interval=None if found is None else (math.expm1(found[0]), math.expm1(found[1])),
        confidence=1 - 2 * alpha,
        method="two one-sided t on logs",
        reason=reason,
        num_units=len(ratios),
    )


def failures(candidate: tuple[int, int], incumbent: tuple[int, int], margin: float, confidence: float) -> Verdict:
    """Whether no more requests fail than with the incumbent, within `margin`; both sides as (failed, requests).

    Exact bounds on each side, so the test is a little stricter than its level.
    """
    (failed, total), (failed_before, total_before) = candidate, incumbent
    effect = failed / max(1, total) - failed_before / max(1, total_before)
    low = lower_bound(failed, total, confidence) - upper_bound(failed_before, total_before, confidence)
    outcome: Outcome = "fail" if low > margin else "pass" if effect <= margin else "inconclusive"
    return Verdict(
        verdict=outcome,
        metric="failures",
        better="lower",
        claim=f"not more than {margin:.0%} more requests fail",
        effect=effect,
        interval=(low, upper_bound(failed, total, confidence) - lower_bound(failed_before, total_before, confidence)),
        confidence=confidence,
        method="exact binomial bounds on each side",
        reason=f"{failed} of {total} failed, the incumbent's {failed_before} of {total_before}",
        num_units=total,
    )


def within(limit: Limit, hits: int, total: int, values: Sequence[float], alpha: float) -> Verdict:
    """Whether a limit is kept: of a percentile by the share of values beyond it, of any other figure by its mean.

    A percentile of `total` values is proved by the exact binomial bound: P90 needs 44 values without a miss.
    """
    if limit.share is not None:
        judged = at_most(hits, total, limit.share)
        return Verdict(
            verdict=judged.verdict,
            metric=limit.metric,
            better="lower",
            claim=f"{limit.metric} is within {limit.value:g}: at most {limit.share:.0%} of values are beyond",
            effect=judged.share,
            interval=judged.interval,
            confidence=judged.confidence,
            method="exact binomial bounds",
            reason=f"{hits} of {total} values are beyond {limit.value:g}",
            num_units=total,
        )
    excesses = [limit.excess(value) for value in values]
    found = interval_of(excesses, 1 - 2 * alpha)
    outcome: Outcome = "inconclusive"
    if found is not None:
        outcome = "pass" if found[1] <= 0 else "fail" if found[0] > 0 else "inconclusive"
    return Verdict(
        verdict=outcome,
        metric=limit.metric,
        better="lower" if limit.sign == "<=" else "higher",
        claim=f"{limit.metric} {limit.sign} {limit.value:g}",
        effect=statistics.fmean(excesses) if excesses else None,
        interval=found,
        confidence=1 - 2 * alpha,
        method="t on the excess over the limit",
        reason=f"on average {statistics.fmean(values):g}" if values else "nothing was measured",
        num_units=len(values),
    )
