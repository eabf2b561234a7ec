"""What a person wants, in their words: `p99 -20 %`, `ttft p90 < 300 ms`, `throughput`, `cost per correct answer`.

An objective is one metric that shall get better, perhaps by a stated part; limits are metrics that must stay on one
side of a value. Pure words and arithmetic: it measures nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from temper.errors import Invalid
from temper.measure.stats.verdict import Better
from temper.measure.workload.schema import Targets
from temper.profile.schema import Slo

_LATENCIES: dict[str, str] = {
    "ttft": "time to first token",
    "ttfat": "time to first answer token",
    "itl": "time between tokens",
    "tpot": "time per output token",
    "e2e": "time to the whole answer",
}
_PARTS = ("p50", "p90", "p95", "p99", "mean")

METRICS: dict[str, tuple[Better, str]] = {
    "output_tokens_per_s": ("higher", "tokens generated per second"),
    "requests_per_s": ("higher", "complete answers per second"),
    "prefill_tokens_per_s": ("higher", "prompt tokens read per second"),
    "goodput_per_s": ("higher", "answers within the SLO per second"),
    "rss_bytes": ("lower", "resident memory of the engine's processes"),
    "cpu_s_per_request": ("lower", "CPU seconds per answer"),
    "cost_per_million_tokens": ("lower", "price of a million tokens, generated ones"),
    "cost_per_correct": ("lower", "price of a correct answer"),
    "quality": ("higher", "score of the quality suite"),
    **{f"{name}_ms.{part}": ("lower", f"{words}, {part}") for name, words in _LATENCIES.items() for part in _PARTS},
}
"""Every metric a study can be about: which way is better, and what it means."""

WORDS: dict[str, str] = {
    "throughput": "output_tokens_per_s",
    "tokens per second": "output_tokens_per_s",
    "tokens/s": "output_tokens_per_s",
    "requests per second": "requests_per_s",
    "prefill": "prefill_tokens_per_s",
    "goodput": "goodput_per_s",
    "memory": "rss_bytes",
    "rss": "rss_bytes",
    "cpu": "cpu_s_per_request",
    "energy": "cpu_s_per_request",
    "cost per correct answer": "cost_per_correct",
    "cost per correct": "cost_per_correct",
    "cost": "cost_per_million_tokens",
    "cost per million tokens": "cost_per_million_tokens",
    "quality": "quality",
    "latency": "e2e_ms.p50",
    "first token": "ttft_ms.p50",
    "first answer token": "ttfat_ms.p50",
    "inter-token latency": "itl_ms.p50",
}
"""What people say, and the metric they mean."""

_LATENCY = re.compile(r"(?:(ttft|ttfat|itl|tpot|e2e|latency)(?:_ms)?[ .]*)?(p50|p90|p95|p99|mean)?", re.IGNORECASE)
_WISH = re.compile(r"(?P<metric>.*?)\s*(?P<change>[-−–+]\s*\d+(?:\.\d+)?)\s*%", re.IGNORECASE)
_LIMIT = re.compile(
    r"(?P<metric>.*?)\s*(?P<sign><=|>=|≤|≥|<|>)\s*(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>[a-zA-Zµ%/]*)", re.IGNORECASE
)
_UNITS: dict[str, float] = {
    "": 1.0, "ms": 1.0, "s": 1000.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20,
    "gib": 2.0**30, "tok/s": 1.0, "tokens/s": 1.0, "/s": 1.0, "%": 0.01,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Objective:
    """One metric that shall get better."""

    metric: str
    better: Better
    wanted: float | None = None
    """The effect that is asked for, B/A − 1: −0.2 for `p99 -20 %`. None: as good as it gets."""
    text: str = ""

    def gain(self, incumbent: float, candidate: float) -> float:
        """How much better the candidate is, as a log-ratio: above 0 is better, whichever way the metric points."""
        ratio = math.log(candidate / incumbent)
        return ratio if self.better == "higher" else -ratio

    def effect(self, gain: float) -> float:
        """B/A − 1 of the metric for a gain."""
        return math.expm1(gain if self.better == "higher" else -gain)


@dataclass(frozen=True, slots=True)
class Limit:
    """A metric that must stay on one side of a value."""

    metric: str
    sign: Literal["<=", ">="]
    value: float
    """In the metric's own unit: ms, bytes, a rate, a share."""
    text: str = ""

    @property
    def name(self) -> str:
        """Names it in records: `ttft_ms.p90<=300`."""
        return f"{self.metric}{self.sign}{self.value:g}"

    @property
    def share(self) -> float | None:
        """Of a percentile: the share of requests that may exceed it, which is what can be proved. Else None."""
        return share_of(self.metric)

    def excess(self, value: float) -> float:
        """How far `value` is beyond it, as a share of the limit; at most 0 where it is kept."""
        return value / self.value - 1 if self.sign == "<=" else 1 - value / self.value


@dataclass(frozen=True, slots=True)
class Goal:
    """All that is asked of a study."""

    objective: Objective
    limits: tuple[Limit, ...] = ()
    quality_margin: float | None = None
    """How much worse the quality may be, in the suite's own score, before a profile is refused. None: as the suite's
    own metric has it."""

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "objective": {
                "metric": self.objective.metric,
                "better": self.objective.better,
                "wanted": self.objective.wanted,
                "text": self.objective.text,
            },
            "limits": [{"metric": limit.metric, "sign": limit.sign, "value": limit.value} for limit in self.limits],
            "quality_margin": self.quality_margin,
        }


def share_of(name: str) -> float | None:
    """The share of values beyond a percentile: 0.1 of `ttft_ms.p90`; None for other figures."""
    part = name.rpartition(".")[2]
    return 1 - int(part[1:]) / 100 if part.startswith("p") and part[1:].isdigit() else None


def parse(text: str, slo: tuple[Limit, ...] = (), quality_margin: float | None = None) -> Goal:
    """The goal that `text` states; parts are separated by `,`, `;` or `and`.

    A part with a value is a limit; the first one without is the objective. Limits alone mean: as much throughput as
    there is within them. `slo` are limits that hold besides.

    Raises:
        Invalid: a part names no metric, or there are two objectives.
    """
    objective: Objective | None = None
    limits = list(slo)
    for part in re.split(r"[,;]|\band\b", text):
        part = part.strip()
        if not part:
            continue
        if (limit := _limit(part)) is not None:
            limits.append(limit)
            continue
        wish = _objective(part)
        if objective is not None:
            raise Invalid(
                f"a study has one objective, but '{text}' states '{objective.text}' and '{wish.text}'",
                param="objective",
                hint="give the second one a limit, such as 'memory < 2 GB'",
            )
        objective = wish
    if objective is None:
        objective = Objective("output_tokens_per_s", "higher", text="throughput")
    return Goal(objective, tuple(dict.fromkeys(limits)), quality_margin)


def of_workload(targets: Targets) -> tuple[Limit, ...]:
    """The limits that a workload's SLO states."""
    part = f"p{targets.percentile}"
    given = (("ttft", targets.ttft_ms), ("tpot", targets.tpot_ms), ("e2e", targets.e2e_ms))
    return tuple(Limit(f"{name}_ms.{part}", "<=", value) for name, value in given if value is not None)


def of_profile(slo: Slo) -> tuple[Limit, ...]:
    """The limits that a profile promises."""
    given = (("ttft", slo.ttft_p99_ms), ("itl", slo.itl_p99_ms), ("e2e", slo.e2e_p99_ms))
    return tuple(Limit(f"{name}_ms.p99", "<=", value) for name, value in given if value is not None)


def metric(words: str) -> str:
    """The metric that `words` name.

    Raises:
        Invalid: none; the hint says what there is.
    """
    spoken = " ".join(words.lower().replace("_ms", "").split()).strip(" .")
    if words.strip() in METRICS:
        return words.strip()
    if spoken in WORDS:
        return WORDS[spoken]
    found = _LATENCY.fullmatch(spoken)
    if found is not None and spoken:
        kind = (found[1] or "e2e").lower()
        return f"{'e2e' if kind == 'latency' else kind}_ms.{(found[2] or 'p50').lower()}"
    raise Invalid(
        f"'{words.strip()}' is no metric",
        param="objective",
        hint=f"say {', '.join(list(WORDS)[:12])}, or ttft/itl/tpot/e2e with p50, p90, p95, p99",
    )


def _limit(part: str) -> Limit | None:
    found = _LIMIT.fullmatch(part)
    if found is None:
        return None
    unit = found["unit"].lower()
    if unit not in _UNITS:
        raise Invalid(f"'{found['unit']}' is no unit", param="objective", hint="use ms, s, MB, GB, /s or %")
    name = metric(found["metric"])
    value = float(found["value"]) * _UNITS[unit]
    if value <= 0:
        raise Invalid(f"a limit is above 0, but '{part}' says {found['value']}", param="objective")
    sign: Literal["<=", ">="] = "<=" if found["sign"] in ("<", "<=", "≤") else ">="
    return Limit(name, sign, value, part)


def _objective(part: str) -> Objective:
    found = _WISH.fullmatch(part)
    name = metric(found["metric"] if found is not None else part)
    better = METRICS[name][0]
    if found is None:
        return Objective(name, better, text=part)
    change = float(re.sub(r"[−–]", "-", found["change"]).replace(" ", "")) / 100
    if (change < 0) != (better == "lower") or change == 0:
        raise Invalid(
            f"'{part}' asks for a change of {change:+.0%}, but {METRICS[name][1]} is better {better}",
            param="objective",
            hint="turn the sign",
        )
    if change <= -1:
        raise Invalid(f"nothing can fall by {-change:.0%}", param="objective", hint="ask for less than 100 %")
    return Objective(name, better, change, part)


def value_of(figures: Mapping[str, float], name: str) -> float | None:
    """A figure that can be compared: above 0 and finite; None where the block has none."""
    found = figures.get(name)
    return None if found is None or not math.isfinite(found) or found <= 0 else float(found)
