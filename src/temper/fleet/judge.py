"""The judge of a rollout: what has been seen of two arms, and what can be said of it at any moment.

Every metric is a confidence sequence of `measure.stats.sequential`, so one may look after every request. Units go to
their arm by a draw that does not know them; that draw is what the comparison rests on. The state is plain JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from temper.fleet.plan import ABOUT, RATES, Guardrail, Metric, Plan
from temper.measure.stats.sequential.means import MeanDifference, ratio
from temper.measure.stats.sequential.quantiles import QuantileRatio
from temper.measure.stats.sequential.rates import RateDifference
from temper.measure.stats.verdict import Outcome, Verdict, overall

PLANNED_UNITS = 1000.0
"""Units at which intervals of means are narrowest for their size."""
FEWEST = 30
"""Units an arm must have before its mean is compared: logs of latencies are about normal only in numbers."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What became of one unit's first request."""

    in_candidate: bool
    share: float
    """The chance that it had of going there."""
    failed: bool
    ttft_ms: float | None = None
    e2e_ms: float | None = None
    """None where it failed: how fast is a question of answers."""
    output_tokens: int | None = None
    wrong: bool | None = None
    """None where its quality was not sampled."""


class ConfidenceSequence(Protocol):
    """One metric's confidence sequence."""

    @property
    def estimate(self) -> float | None:
        """The effect so far."""

    @property
    def num_units(self) -> tuple[int, int]:
        """Of control and candidate."""

    def interval(self, alpha: float) -> tuple[float, float]:
        """Of the effect, at all looks together."""

    def state(self) -> dict[str, Any]:
        """Plain data."""


@dataclass(slots=True)
class Judge:
    """The evidence of one rollout."""

    plan: Plan
    num_units: int = 0
    """Judged so far, both arms."""
    num_in_step: int = 0
    """Of these, at the present step."""
    num_candidate: int = 0
    sequences: dict[Metric, ConfidenceSequence] = field(default_factory=dict)

    def __post_init__(self) -> None:
        metrics = dict.fromkeys((*self.plan.watched, *([self.plan.target] if self.plan.target else [])))
        for metric in metrics:
            self.sequences.setdefault(metric, _new(metric, self.plan))

    def observe(self, unit: Unit) -> None:
        """One more unit, of whichever arm."""
        self.num_units += 1
        self.num_in_step += 1
        self.num_candidate += unit.in_candidate
        for metric, sequence in self.sequences.items():
            value = _value(metric, unit)
            if value is None:
                continue
            if isinstance(sequence, RateDifference):
                sequence.observe(bool(value), in_b=unit.in_candidate, share=unit.share)
            elif isinstance(sequence, MeanDifference):
                sequence.observe(math.log(max(value, 1e-3)), in_b=unit.in_candidate)
            elif isinstance(sequence, QuantileRatio):
                sequence.observe(value, in_b=unit.in_candidate)

    def next_step(self) -> None:
        """The share changes: begin anew what compares arms at one share."""
        self.num_in_step = 0
        for metric in self.sequences:
            if metric not in RATES:
                self.sequences[metric] = _new(metric, self.plan)

    def verdict(self) -> Verdict:
        """What can be said now: the target, or that nothing got worse, with every guardrail."""
        guardrails = tuple(self._guarded(guardrail) for guardrail in self.plan.watched.values())
        target = self._target(guardrails)
        return Verdict(
            verdict=overall(target, guardrails),
            metric=target.metric,
            better=target.better,
            claim=target.claim,
            effect=target.effect,
            interval=target.interval,
            confidence=1 - self.plan.alpha,
            method="confidence sequences, one error budget",
            reason=_reason(target, guardrails),
            num_units=min(self.num_candidate, self.num_units - self.num_candidate),
            evidence={"num_control": self.num_units - self.num_candidate, "num_candidate": self.num_candidate},
            guardrails=guardrails,
        )

    # -- one metric --------------------------------------------------------------------------------------

    def seen(self, metric: Metric) -> tuple[float | None, tuple[float, float]]:
        """(effect, interval) of a metric now."""
        sequence = self.sequences[metric]
        low, high = sequence.interval(self.plan.alphas[metric])
        if isinstance(sequence, MeanDifference):
            estimate = sequence.estimate
            return None if estimate is None else math.expm1(estimate), ratio((low, high))
        return sequence.estimate, (low, high)

    def _target(self, guardrails: tuple[Verdict, ...]) -> Verdict:
        if self.plan.target is None:
            shown = next((one for one in guardrails if one.metric == "e2e"), guardrails[0] if guardrails else None)
            effect, interval = (shown.effect, shown.interval) if shown else (None, None)
            metric: str = shown.metric if shown else "nothing"
            return self._said(metric, "pass" if shown else "inconclusive", "B is not worse", effect, interval, "")
        metric = self.plan.target
        effect, interval = self.seen(self.plan.target)
        low, high = interval
        outcome: Outcome = "pass" if high < 0 else "fail" if low > 0 else "inconclusive"
        return self._said(metric, outcome, f"B has less: {ABOUT[self.plan.target]}", effect, interval, metric)

    def _guarded(self, guardrail: Guardrail) -> Verdict:
        effect, (low, high) = self.seen(guardrail.metric)
        tolerance = guardrail.tolerance
        least = -tolerance / (1 + tolerance) if guardrail.either_way else -math.inf  # as far below, on a log scale
        within = high < tolerance and low > least
        harm = not within and (low > 0 or (guardrail.either_way and high < 0))
        outcome: Outcome = "fail" if harm else "pass" if within or not guardrail.proven else "inconclusive"
        about = ABOUT[guardrail.metric]
        claim = (
            f"B has at most {tolerance:.3g} more: {about}"
            if guardrail.proven
            else f"B is not shown to be worse: {about}"
        )
        return self._said(guardrail.metric, outcome, claim, effect, (low, high), guardrail.metric)

    def _said(
        self, metric: str, outcome: Outcome, claim: str, effect: float | None, interval: Any, counted: str
    ) -> Verdict:
        sequence = self.sequences.get(counted) if counted else None  # type: ignore[call-overload]
        units = (
            sequence.num_units if sequence is not None else (self.num_units - self.num_candidate, self.num_candidate)
        )
        return Verdict(
            verdict=outcome,
            metric=metric,
            better="lower",
            claim=claim,
            effect=effect,
            interval=interval,
            confidence=1 - self.plan.alphas.get(metric, self.plan.alpha),
            method=_METHODS.get(type(sequence), "all guardrails together"),
            reason=_words(metric, effect, interval),
            num_units=min(units),
            evidence={"num_control": units[0], "num_candidate": units[1]},
        )

    # -- kept --------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Plain data, from which `restored` goes on."""
        return {
            "num_units": self.num_units,
            "num_in_step": self.num_in_step,
            "num_candidate": self.num_candidate,
            "sequences": {metric: sequence.state() for metric, sequence in self.sequences.items()},
        }

    @classmethod
    def restored(cls, plan: Plan, state: Mapping[str, Any]) -> Judge:
        """From `state()`; from nothing at the beginning."""
        if not state:
            return cls(plan)
        sequences = {metric: type(_new(metric, plan)).restored(kept) for metric, kept in state["sequences"].items()}
        return cls(plan, state["num_units"], state["num_in_step"], state["num_candidate"], sequences)


_METHODS: dict[type, str] = {
    RateDifference: "betting on inverse-probability-weighted scores",
    MeanDifference: "mixture t-sequence on logs",
    QuantileRatio: "betting quantile sequences",
}


def _new(metric: Metric, plan: Plan) -> Any:
    if metric in ("errors", "wrong"):
        return RateDifference()
    if metric == "p99":
        return QuantileRatio(99.0)
    return MeanDifference(planned_units=PLANNED_UNITS, fewest=FEWEST)


def _value(metric: Metric, unit: Unit) -> float | None:
    match metric:
        case "errors":
            return float(unit.failed)
        case "wrong":
            return None if unit.wrong is None else float(unit.wrong)
        case "ttft":
            return unit.ttft_ms
        case "output":
            return None if unit.output_tokens is None else float(max(unit.output_tokens, 1))
        case _:
            return unit.e2e_ms


def _words(metric: str, effect: float | None, interval: tuple[float, float] | None) -> str:
    if effect is None or interval is None:
        return f"{metric}: nothing seen yet"
    rate = metric in ("errors", "wrong")
    low, high = (f"{end:+.1%}" if math.isfinite(end) else ("−∞" if end < 0 else "∞") for end in interval)
    return f"{metric} {effect:+.1%}{' points' if rate else ''} ({low} … {high})"


def _reason(target: Verdict, guardrails: tuple[Verdict, ...]) -> str:
    failed = [one for one in guardrails if one.verdict == "fail"]
    if failed:
        return "worse than tolerated: " + "; ".join(one.reason for one in failed)
    if target.verdict == "fail":
        return f"the target got worse: {target.reason}"
    open_ = [one for one in (target, *guardrails) if one.verdict == "inconclusive"]
    if open_:
        return "not shown yet: " + "; ".join(one.reason for one in open_)
    return "shown: " + (target.reason if target.claim != "B is not worse" else "nothing got worse; " + target.reason)
