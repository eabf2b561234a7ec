"""Judge two reports of one suite on the same items: is B not worse than A, or is it better?"""

from __future__ import annotations

from typing import Any

from temper.errors import Invalid
from temper.measure.quality.intervals import Interval, paired_mean, tango
from temper.measure.quality.report import Figure, Report
from temper.measure.stats.verdict import Outcome, Verdict


def compare(
    a: Report, b: Report, *, metric: str | None = None, margin: float | None = None, confidence: float = 0.95
) -> Verdict:
    """Whether B's quality is not more than `margin` worse than A's (the metric's own margin by default).

    Items are paired by id. The effect is B − A in the metric's unit, its interval two-sided at `confidence`, so that
    the one-sided test of non-inferiority is at (1 − confidence)/2. `margin=0` asks whether B is better at all.

    Raises:
        Invalid: the reports are not of the same items, or the margin is negative.
        NotFound: the suite has no such metric.
    """
    figure = a.figure(metric)
    name = figure.metric.name
    other = b.figure(name)
    margin = figure.metric.margin if margin is None else margin
    _check(a, b, margin)
    pairs = _pairs(a, b, name)
    better = figure.metric.better
    sign = 1 if better == "higher" else -1
    claim = f"B's {name} is {better} than A's" if margin == 0 else f"B's {name} is not more than {margin:g} worse"
    evidence = {"suite": a.suite, "seed": a.seed, "margin": margin, "a": _side(a, figure), "b": _side(b, other)}
    interval: Interval | None = None
    effect: float | None = None
    if pairs:
        effect = sum(y - x for x, y in pairs) / len(pairs)
        interval = _interval(figure, pairs, confidence, evidence)
    outcome, reason = _judge(effect, interval, margin, sign)
    return Verdict(
        verdict=outcome,
        metric=f"{a.suite}.{name}",
        better=better,
        claim=claim,
        effect=effect,
        interval=None if interval is None else (interval.low, interval.high),
        confidence=confidence,
        method="none" if interval is None else interval.method,
        reason=reason,
        num_units=len(pairs),
        evidence=evidence,
    )


def _check(a: Report, b: Report, margin: float) -> None:
    if margin < 0:
        raise Invalid(f"a margin is 0 or more, but is {margin:g}", param="margin")
    if (a.suite, a.seed) != (b.suite, b.seed):
        raise Invalid(
            f"both reports must be of the same items, but are {a.suite} with seed {a.seed} and {b.suite} with "
            f"seed {b.seed}",
            param="seed",
            hint="evaluate both with the same suite and seed",
        )


def _pairs(a: Report, b: Report, name: str) -> list[tuple[float, float]]:
    others = {result.id: result.values for result in b.results}
    return [
        (result.values[name], others[result.id][name])
        for result in a.results
        if name in result.values and name in others.get(result.id, {})
    ]


def _interval(
    figure: Figure, pairs: list[tuple[float, float]], confidence: float, evidence: dict[str, Any]
) -> Interval | None:
    if figure.metric.kind == "share":
        gained = sum(y > x for x, y in pairs)
        lost = sum(y < x for x, y in pairs)
        evidence |= {"only_b": gained, "only_a": lost}
        return tango(gained, lost, len(pairs), confidence)
    bounds = figure.metric.bounds
    return paired_mean([y - x for x, y in pairs], confidence, None if bounds is None else bounds[1] - bounds[0])


def _judge(effect: float | None, interval: Interval | None, margin: float, sign: int) -> tuple[Outcome, str]:
    if effect is None or interval is None:
        return "inconclusive", "too few items that both sides could be scored on"
    worst, best = sorted((sign * interval.low, sign * interval.high))
    if worst > -margin:
        return "pass", f"even the worse end of the interval, {sign * worst:+.4g}, is within the margin of {margin:g}"
    if best < -margin:
        return "fail", f"even the better end of the interval, {sign * best:+.4g}, is past the margin of {margin:g}"
    return "inconclusive", f"the interval holds the margin of {margin:g}: more items are needed to tell"


def _side(report: Report, figure: Figure) -> dict[str, Any]:
    return {
        "model": report.model,
        "value": figure.value,
        "num_items": figure.num_items,
        "failed": report.num_failed,
        "truncation_rate": report.truncation.value,
    }
