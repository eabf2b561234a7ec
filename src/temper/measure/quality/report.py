"""What an evaluation found: a figure with its interval for each metric, and everything that makes it doubtful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from temper.errors import NotFound
from temper.measure.quality.intervals import Interval
from temper.measure.quality.suite import Metric

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Result:
    """One item, asked and scored."""

    id: str
    values: Mapping[str, float]
    """By metric; empty where there is no answer and the metric has no worst value."""
    text: str = ""
    """The answer without its thinking."""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    duration_s: float = 0.0
    error: str | None = None
    """Why there is no answer, or no score."""

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut off by its token limit."""
        return self.finish_reason == "length"


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric over all items."""

    metric: Metric
    value: float | None
    """The mean; None where no item could be scored."""
    interval: Interval | None
    num_items: int


@dataclass(frozen=True, slots=True)
class Report:
    """One suite over one engine."""

    suite: str
    model: str
    engine: str
    seed: int
    count: int
    """Items asked."""
    figures: Mapping[str, Figure]
    """By metric, the one that verdicts are about first."""
    truncation: Figure
    results: tuple[Result, ...]
    wall_s: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What was asked of the engine beside the items: sampling, limits, concurrency."""
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def primary(self) -> Figure:
        """The figure that verdicts are about."""
        return next(iter(self.figures.values()))

    @property
    def score(self) -> float | None:
        """The primary figure's value."""
        return self.primary.value

    @property
    def num_failed(self) -> int:
        """Items without an answer or a score."""
        return sum(result.error is not None for result in self.results)

    def figure(self, metric: str | None = None) -> Figure:
        """The figure of `metric`; the primary one by default.

        Raises:
            NotFound: this suite has no such metric.
        """
        if metric is None:
            return self.primary
        if metric not in self.figures:
            raise NotFound(
                f"the suite '{self.suite}' has no metric '{metric}'",
                param="metric",
                hint=f"it has {', '.join(self.figures)}",
            )
        return self.figures[metric]

    def document(self, *, answers: bool = False) -> dict[str, Any]:
        """Plain data for JSON; `answers` adds every item with its text."""
        found: dict[str, Any] = {
            "suite": self.suite,
            "model": self.model,
            "engine": self.engine,
            "seed": self.seed,
            "count": self.count,
            "metrics": {name: _plain(figure) for name, figure in self.figures.items()},
            "truncation_rate": _plain(self.truncation),
            "failed": self.num_failed,
            "failures": failures(self.results),
            "tokens": {
                "prompt": sum(result.prompt_tokens for result in self.results),
                "completion": sum(result.completion_tokens for result in self.results),
                "reasoning": sum(result.reasoning_tokens for result in self.results),
            },
            "wall_s": round(self.wall_s, 3),
            "settings": dict(self.settings),
            "notes": dict(self.notes),
        }
        if answers:
            found["items"] = [asdict(result) for result in self.results]
        return found


def failures(results: Sequence[Result]) -> dict[str, int]:
    """Reasons why items have no answer, with their counts."""
    found: dict[str, int] = {}
    for result in results:
        if result.error is not None:
            found[result.error] = found.get(result.error, 0) + 1
    return found


def _plain(figure: Figure) -> dict[str, Any]:
    interval = figure.interval
    return {
        "value": figure.value,
        "interval": None if interval is None else [interval.low, interval.high],
        "confidence": CONFIDENCE,
        "method": None if interval is None else interval.method,
        "better": figure.metric.better,
        "num_items": figure.num_items,
        "meaning": figure.metric.meaning,
    }
