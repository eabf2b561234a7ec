"""From what was found to a verdict: superiority on the target, non-inferiority on every guardrail, Holm over alarms.

Passing needs no correction for many metrics, as every one of them must pass (an intersection–union test: Berger,
Technometrics 24, 1982). Alarms need one, as any of them is enough to fail: they go through Holm together. So of two
arms that are alike, no more than α are told apart in either direction.
"""

from __future__ import annotations

from collections.abc import Mapping

from temper.errors import Invalid
from temper.measure.stats.estimate import Estimate
from temper.measure.stats.verdict import Better, Outcome, Verdict


def superior(
    metric: str, better: Better, found: Estimate, *, indifference: float, p_alarm: float | None = None
) -> Verdict:
    """Whether B is better than A: pass when the whole interval is on the better side of 0.

    Fail when B is worse: the interval is on the other side, and `p_alarm` (the one-sided p-value of being worse,
    corrected for the other metrics; None: as found) is at most half of 1 − confidence. An interval around 0 and within
    ± `indifference` is inconclusive too, but says that there is no difference that counts.
    """
    claim = f"B is {better}"
    if found.effect is None or found.interval is None:
        return _verdict("inconclusive", metric, better, claim, found, found.reason)
    low, high = _worse_is_positive(found.interval, better)
    size = percent(found.effect)
    if high < 0:
        return _verdict(
            "pass", metric, better, claim, found, f"B is better by {size}, the whole interval on that side of 0"
        )
    if low > 0:
        if _is_alarm(found, better, p_alarm):
            return _verdict(
                "fail", metric, better, claim, found, f"B is worse by {size}, the whole interval on that side of 0"
            )
        reason = "B looks worse, but not surely so where several metrics are looked at"
        return _verdict("inconclusive", metric, better, claim, found, reason)
    if low >= -indifference and high <= indifference:
        reason = f"no difference: it is surely below {percent(indifference, sign=False)} either way"
        return _verdict("inconclusive", metric, better, claim, found, reason, no_difference=True)
    reason = f"too little to tell: from {percent(found.interval[0])} to {percent(found.interval[1])} all is possible"
    return _verdict("inconclusive", metric, better, claim, found, reason)


def not_worse(metric: str, better: Better, found: Estimate, *, margin: float, p_alarm: float | None = None) -> Verdict:
    """Whether B is at most `margin` worse than A (in the effect's unit, above 0).

    Pass when the whole interval is within the margin; fail when B is worse (see `superior`) and not surely within it.

    Raises:
        Invalid: the margin is not above 0: no sample could ever show "not worse at all".
    """
    if not margin > 0:
        raise Invalid(f"a margin must be above 0, not {margin:g}", param="margin")
    claim = f"B is not more than {percent(margin, sign=False)} worse"
    if found.effect is None or found.interval is None:
        return _verdict("inconclusive", metric, better, claim, found, found.reason)
    low, high = _worse_is_positive(found.interval, better)
    if high <= margin:
        return _verdict(
            "pass", metric, better, claim, found, f"surely not more than {percent(margin, sign=False)} worse"
        )
    if low > 0 and _is_alarm(found, better, p_alarm):
        return _verdict("fail", metric, better, claim, found, f"B is worse by {percent(found.effect)}")
    reason = f"B may be {percent(high)} worse as far as these units tell; {percent(margin, sign=False)} is allowed"
    return _verdict("inconclusive", metric, better, claim, found, reason)


def alike(metric: str, better: Better, found: Estimate, *, margin: float, p_alarm: float | None = None) -> Verdict:
    """Whether B is within ± `margin` of A: equivalence, for what should not move at all, such as answers' length.

    Fail when B differs, by `p_alarm` (two-sided) or as found, and not surely within the margin.

    Raises:
        Invalid: the margin is not above 0.
    """
    if not margin > 0:
        raise Invalid(f"a margin must be above 0, not {margin:g}", param="margin")
    claim = f"B is within {percent(margin, sign=False)} of A"
    if found.effect is None or found.interval is None:
        return _verdict("inconclusive", metric, better, claim, found, found.reason)
    low, high = found.interval
    if -margin <= low and high <= margin:
        return _verdict("pass", metric, better, claim, found, f"surely within {percent(margin, sign=False)}")
    sure = p_alarm is None or p_alarm <= 1 - found.confidence + ROUNDING
    if (low > 0 or high < 0) and sure:
        return _verdict("fail", metric, better, claim, found, f"B differs by {percent(found.effect)}")
    reason = f"from {percent(low)} to {percent(high)} all is possible; ±{percent(margin, sign=False)} is allowed"
    return _verdict("inconclusive", metric, better, claim, found, reason)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values, in the order given: reject those at most α, and any wrong rejection has chance α at most.

    S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6, 1979.
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for index, (name, value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, value * (len(p_values) - index)))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


ROUNDING = 1e-9
"""An interval and its p-value say the same; keep float noise from making them disagree."""


def percent(value: float, *, sign: bool = True) -> str:
    """A share as people read it: `+3.2 %`."""
    return f"{100 * value:{'+' if sign else ''}.3g} %"


def _worse_is_positive(interval: tuple[float, float], better: Better) -> tuple[float, float]:
    low, high = interval
    return (low, high) if better == "lower" else (-high, -low)


def _is_alarm(found: Estimate, better: Better, p_alarm: float | None) -> bool:
    return p_alarm is None or p_alarm <= (1 - found.confidence) / 2 + ROUNDING


def _verdict(
    outcome: Outcome, metric: str, better: Better, claim: str, found: Estimate, reason: str, **more: object
) -> Verdict:
    return Verdict(
        verdict=outcome,
        metric=metric,
        better=better,
        claim=claim,
        effect=found.effect,
        interval=found.interval,
        confidence=found.confidence,
        method=found.method,
        reason=reason,
        num_units=found.num_units,
        evidence={**found.evidence, **more},
    )
