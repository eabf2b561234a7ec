"""What the blocks of an A/B test say: superiority on the target, non-inferiority on every guardrail, and the document.

Pure arithmetic on outcomes: no clock, no engine. Of two arms that are alike, at most 1 − confidence are told apart, in
either direction, guardrails included (see `stats.noninferiority`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from temper.errors import Invalid, NotFound
from temper.measure import latency
from temper.measure.ab import Block, Measured
from temper.measure.bench import figure
from temper.measure.loadgen import Outcome
from temper.measure.stats import ab, bootstrap, noninferiority, proportion
from temper.measure.stats.estimate import Estimate
from temper.measure.stats.verdict import Better, Verdict, overall

CONFIDENCE = 0.95
INDIFFERENCE = 0.02
"""An effect on the target that nobody would act on."""
TARGET = "e2e_ms.p50"
GUARDRAILS: Mapping[str, float] = {"failures": 0.01, "ttft_ms.p50": 0.1, "output_tokens": 0.1}
"""What must not get worse, and the margin: of `failures` as a difference of shares, of the others as a ratio."""
TWO_SIDED = ("output_tokens",)
"""What must not move at all: a profile that says less looks faster."""
FEWEST_FOR_ORDER = 6
"""Pairs from which the order within a pair is worth its degree of freedom; an even number, so that it is balanced."""

RATES = ("output_tokens_per_s", "requests_per_s", "total_tokens_per_s", "prefill_tokens_per_s", "goodput_per_s")
SPREADS = ("ttft_ms", "ttfat_ms", "itl_ms", "tpot_ms", "e2e_ms")
PARTS = ("p50", "p90", "p99", "mean")

DEFINITIONS: dict[str, str] = {
    "effect": "B / A - 1 of the metric, geometric mean over units; of failures: share of B - share of A.",
    "unit": "What is independent: an engine start, or a pair of blocks in time. Requests in a block are not.",
    "block": "The same requests sent to both arms, one right after the other; who comes first alternates (ABBA).",
    "verdict": "pass: B is better on the target and, on every guardrail, surely not worse than its margin. fail: B is "
    "worse on any of them. Else inconclusive; `no_difference` says that the target surely moved by less than anyone "
    "would act on.",
    "output_tokens": "Mean length of complete answers. A shift either way is an alarm: who says less looks faster.",
    "smallest_effect": "The effect that a test of this size and spread finds four times in five.",
}


def metrics() -> tuple[str, ...]:
    """Every metric that may be a target or a guardrail."""
    return ("failures", "output_tokens", *RATES, *(f"{name}.{part}" for name in SPREADS for part in PARTS))


def direction(metric: str) -> Better:
    """Which way is better.

    Raises:
        NotFound: there is no such metric; the hint names the nearest.
    """
    if metric not in metrics():
        import difflib

        near = difflib.get_close_matches(metric, metrics(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(metrics())}"
        raise NotFound(f"there is no metric '{metric}'", param="metric", hint=hint)
    return "higher" if metric in (*RATES, "output_tokens") else "lower"


def judge(
    measured: Measured,
    *,
    target: str = TARGET,
    guardrails: Mapping[str, float] = GUARDRAILS,
    indifference: float = INDIFFERENCE,
    confidence: float = CONFIDENCE,
) -> Verdict:
    """The verdict on B against A, guardrails inside; the target is no guardrail of itself.

    Raises:
        NotFound: there is no such metric.
        Invalid: a margin or the confidence breaks its rule, or the target is not one that can be better.
    """
    if not 0.5 <= confidence < 1:
        raise Invalid(f"a confidence lies between 0.5 and 1, not {confidence:g}", param="confidence")
    if target in TWO_SIDED:
        raise Invalid(f"'{target}' is neither better high nor low", param="metric", hint="take it as a guardrail")
    margins = {name: margin for name, margin in guardrails.items() if name != target}
    found = {name: estimate(measured, name, confidence) for name in (target, *margins)}
    alarms = noninferiority.holm({name: p for name in found if (p := _p_alarm(name, found[name])) is not None})
    aim = noninferiority.superior(
        target, direction(target), found[target], indifference=indifference, p_alarm=alarms.get(target)
    )
    guards = []
    for name, margin in margins.items():
        if name in TWO_SIDED:
            p_alarm = 2 * alarms[name] if name in alarms else None  # all alarms share half of 1 − confidence
            guard = noninferiority.alike(name, direction(name), found[name], margin=margin, p_alarm=p_alarm)
        else:
            guard = noninferiority.not_worse(
                name, direction(name), found[name], margin=margin, p_alarm=alarms.get(name)
            )
        guards.append(guard)
    all_guards = (*guards, *measured.quality)
    return replace(aim, verdict=overall(aim, all_guards), reason=_reason(aim, all_guards), guardrails=all_guards)


def estimate(measured: Measured, metric: str, confidence: float = CONFIDENCE) -> Estimate:
    """B against A in one metric.

    Raises:
        NotFound: there is no such metric.
    """
    direction(metric)
    if metric == "failures":
        return _failures(measured.blocks, confidence)
    units = unit_figures(measured, metric)
    whole = [(a, b) for a, b in units if a is not None and b is not None]
    spread, _, part = metric.partition(".")
    if len(whole) < len(units) and part.startswith("p"):
        return _percentile(measured, spread, float(part[1:]), confidence)
    order = None
    balanced = len(units) % 2 == 0 and len(whole) == len(units) >= FEWEST_FOR_ORDER
    if balanced and not measured.design.restart:
        order = [1.0 if block.a_first else -1.0 for block in measured.blocks]
    a, b = [pair[0] for pair in whole], [pair[1] for pair in whole]
    found = ab.paired(a, b, confidence=confidence, covariate=order)
    more: dict[str, Any] = {}
    if whole:
        more["mann_whitney"] = ab.mann_whitney(a, b)
    if found.interval is not None:
        more["smallest_effect"] = _smallest_effect(found.evidence["standard_error"], len(whole), confidence)
    if len(whole) < len(units):
        more["num_units_without_figure"] = len(units) - len(whole)
    return replace(found, evidence={**found.evidence, **more})


def unit_figures(measured: Measured, metric: str) -> list[tuple[float | None, float | None]]:
    """The figure of A and B in each unit: geometric mean over its blocks, None where a block has none."""
    found = []
    for unit in range(measured.design.num_units):
        blocks = [block for block in measured.blocks if block.unit == unit]
        found.append((_figure(measured, [block.a for block in blocks], metric),
                      _figure(measured, [block.b for block in blocks], metric)))  # fmt: skip
    return found


def _figure(measured: Measured, blocks: Sequence[Sequence[Outcome]], metric: str) -> float | None:
    logs = []
    for outcomes in blocks:
        if metric == "output_tokens":
            value = _mean_length(outcomes)
        else:
            value = figure(latency.figures(outcomes, measured.workload.slo), metric)
        if value is None or value <= 0:
            return None
        logs.append(math.log(value))
    return math.exp(sum(logs) / len(logs)) if logs else None


def _mean_length(outcomes: Sequence[Outcome]) -> float | None:
    """Tokens per complete answer; answers that are all empty count as half a token, so that they have a log."""
    lengths = [outcome.output_tokens for outcome in outcomes if outcome.failure is None]
    return max(sum(lengths) / len(lengths), 0.5) if lengths else None


def _failures(blocks: Sequence[Block], confidence: float) -> Estimate:
    hits = [[sum(o.failure is not None for o in side) for side in (block.a, block.b)] for block in blocks]
    totals = [[len(block.a), len(block.b)] for block in blocks]
    spread = max(proportion.design_effect([h[i] for h in hits], [t[i] for t in totals]) for i in (0, 1))
    (a, b), (all_a, all_b) = map(sum, zip(*hits, strict=True)), map(sum, zip(*totals, strict=True))
    return proportion.difference(a, all_a, b, all_b, confidence=confidence, design_effect=spread)


def _percentile(measured: Measured, spread: str, percent: float, confidence: float) -> Estimate:
    """A percentile that no block carries: over all requests, in stretches as long as a unit."""
    a = [value for block in measured.blocks for value in _values(block.a, spread)]
    b = [value for block in measured.blocks for value in _values(block.b, spread)]
    length = max(1.0, min(len(a), len(b)) / measured.design.num_units)
    return bootstrap.percentile_ratio(a, b, percent, block=length, confidence=confidence, seed=measured.workload.seed)


def _values(outcomes: Sequence[Outcome], spread: str) -> list[float]:
    """Seconds of each request (or gap), in the order in which requests were due."""
    whole = sorted((o for o in outcomes if o.failure is None and o.arrivals_s), key=lambda outcome: outcome.due_s)
    match spread:
        case "ttft_ms":
            values = [latency.ttft_s(outcome) for outcome in whole]
        case "ttfat_ms":
            values = [o.answer_s - o.due_s for o in whole if o.answer_s is not None]
        case "itl_ms":
            values = [gap for outcome in whole for gap in latency.gaps_s(outcome)]
        case "tpot_ms":
            values = [value for outcome in whole if (value := latency.tpot_s(outcome)) is not None]
        case _:
            values = [outcome.end_s - outcome.due_s for outcome in whole]
    return [max(value, 1e-9) for value in values]


def _p_alarm(metric: str, found: Estimate) -> float | None:
    """How likely an effect this bad is where there is none; in either direction where either is bad."""
    if metric in TWO_SIDED:
        p_higher, p_lower = found.p_higher, found.p_lower
        return None if p_higher is None or p_lower is None else min(1.0, 2 * min(p_higher, p_lower))
    return found.p_worse(direction(metric))


def _smallest_effect(error: float, num_units: int, confidence: float) -> float:
    from scipy.stats import t

    freedom = num_units - 1
    return math.expm1((float(t.ppf((1 + confidence) / 2, freedom)) + float(t.ppf(0.8, freedom))) * error)


def _reason(aim: Verdict, guardrails: Sequence[Verdict]) -> str:
    """In one sentence, what decided."""
    failed = [guard for guard in guardrails if guard.verdict == "fail"]
    open_ = [guard for guard in guardrails if guard.verdict == "inconclusive"]
    if failed and aim.verdict != "fail":
        return f"{failed[0].metric} fails: {failed[0].reason}"
    if aim.verdict == "pass" and open_:
        return f"{aim.reason}; but {open_[0].metric} is not settled: {open_[0].reason}"
    return aim.reason


# -- the document ------------------------------------------------------------------------------------


def document(measured: Measured, verdict: Verdict, names: Mapping[str, str]) -> dict[str, Any]:
    """Everything that is known, as plain data; `names` are what the arms `a` and `b` are called."""
    shown = dict.fromkeys((verdict.metric, *(guard.metric for guard in verdict.guardrails)))
    return {
        **verdict.document(),
        "arms": {side: _arm(measured, side, names[side]) for side in ("a", "b")},
        "design": {
            "unit": measured.design.unit,
            "num_units": measured.design.num_units,
            "blocks_per_unit": measured.design.blocks_per_unit,
            "requests_per_block": measured.design.requests,
        },
        "units": {
            metric: [list(pair) for pair in unit_figures(measured, metric)]
            for metric in shown
            if metric in metrics() and metric != "failures"
        },
        "workload": measured.workload.model_dump(mode="json"),
        "definitions": {**DEFINITIONS, **latency.DEFINITIONS},
    }


def _arm(measured: Measured, side: str, name: str) -> dict[str, Any]:
    """One arm over all its blocks. Rates are medians over blocks: the time between blocks was the other arm's."""
    blocks: list[list[Outcome]] = [getattr(block, side) for block in measured.blocks]
    pooled = [outcome for outcomes in blocks for outcome in outcomes]
    found = latency.figures(pooled, measured.workload.slo)
    kept = ("requests", "completed", "prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens",
            "tokens_per_piece", *SPREADS, "failures", "failure_messages")  # fmt: skip
    by_block = [latency.figures(outcomes, measured.workload.slo) for outcomes in blocks]
    return {
        "name": name,
        "model": measured.models.get(side),
        "notes": measured.notes.get(side, []),
        **{key: found[key] for key in kept},
        **{rate: _median([f[rate] for f in by_block if f[rate] is not None]) for rate in RATES},
        "output_tokens_mean": _mean_length(pooled),
        "lengths": dict(sorted(Counter(o.output_tokens for o in pooled if o.failure is None).items())),
        "distribution": latency.distribution(pooled),
    }


def _median(values: Sequence[float]) -> float | None:
    import statistics

    return statistics.median(values) if values else None
