"""One trial of a study: a point, what was measured there, and what came of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from temper.tuner.evaluate import Block, Trouble
from temper.tuner.objective import Goal, Limit, Objective, value_of
from temper.tuner.space import Point
from temper.tuner.study import Told

Arm = Literal["incumbent", "control", "tpe", "polish", "simpler"]
State = Literal["complete", "beaten", "trouble", "pruned"]

WORST_LOSS = 3.0
"""What Optuna is told of a point that could not be measured: twenty times slower than the incumbent."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The same load on both sides."""

    incumbent: Block
    candidate: Block


@dataclass(slots=True)
class Trial:
    """One point tried in the search."""

    number: int
    arm: Arm
    point: Point
    state: State = "complete"
    pairs: list[Pair] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    """Log-ratios to the incumbent, one a pair; above 0 is better."""
    trouble: Trouble | None = None
    quality: float | None = None
    """How much worse than allowed its quality is; at most 0 is allowed, None where it was not asked."""
    reason: str = ""
    """Why it ended as it did, in words."""

    @property
    def gain(self) -> float | None:
        """Mean log-ratio; None where nothing was measured."""
        return statistics.fmean(self.gains) if self.gains else None

    def constraints(self, goal: Goal, length_bound: float | None) -> dict[str, float]:
        """What must be at most 0: limits, quality, length, trouble. `length_bound` is a log-ratio; None: no bound."""
        found = {"trouble": 0.0 if self.trouble is None and self.state != "pruned" else 1.0}
        for limit in goal.limits:
            found[limit.name] = self.excess(limit)
        found["quality"] = 0.0 if self.quality is None else self.quality
        found["answer_tokens"] = 0.0
        if length_bound is not None:
            shifts = [shift for pair in self.pairs if (shift := length_shift(pair)) is not None]
            found["answer_tokens"] = abs(statistics.fmean(shifts)) - length_bound if shifts else 0.0
        return found

    def excess(self, limit: Limit) -> float:
        """How far the limit is exceeded, a share of it, on average over the blocks; 1 where nothing was measured."""
        values = [value for pair in self.pairs if (value := value_of(pair.candidate.figures, limit.metric)) is not None]
        return limit.excess(statistics.fmean(values)) if values else 1.0

    def is_feasible(self, goal: Goal, length_bound: float | None) -> bool:
        """Measured, and within everything that was asked."""
        return bool(self.gains) and all(value <= 0 for value in self.constraints(goal, length_bound).values())

    def told(self, goal: Goal, length_bound: float | None) -> Told:
        """For the sampler."""
        loss = WORST_LOSS if self.gain is None else min(WORST_LOSS, -self.gain)
        return Told(self.point, loss, self.constraints(goal, length_bound))

    def document(self, goal: Goal, length_bound: float | None) -> dict[str, Any]:
        """For the ledger and the page."""
        gain = self.gain
        return {
            "number": self.number,
            "arm": self.arm,
            "branch": self.point.branch,
            "values": dict(self.point.values),
            "state": self.state,
            "gain": gain,
            "effect": None if gain is None else goal.objective.effect(gain),
            "value": mean_figure([pair.candidate for pair in self.pairs], goal.objective.metric),
            "incumbent_value": mean_figure([pair.incumbent for pair in self.pairs], goal.objective.metric),
            "num_pairs": len(self.pairs),
            "feasible": self.is_feasible(goal, length_bound),
            "constraints": self.constraints(goal, length_bound),
            "trouble": None if self.trouble is None else {"kind": self.trouble.kind, "reason": self.trouble.reason},
            "figures": mean_figures([pair.candidate for pair in self.pairs]),
            "seconds": sum(block.seconds + block.start_s for pair in self.pairs for block in _sides(pair)),
            "reason": self.reason,
        }


def _sides(pair: Pair) -> tuple[Block, Block]:
    return pair.incumbent, pair.candidate


def gain_of(pair: Pair, objective: Objective) -> float | None:
    """The pair's log-ratio; None where a side has no such figure."""
    before, after = (_figure(block, objective.metric) for block in _sides(pair))
    return None if before is None or after is None else objective.gain(before, after)


def _figure(block: Block, metric: str) -> float | None:
    """A figure for a ratio. No good answer at all counts as half a one, so that ratios stay finite."""
    if metric == "goodput_per_s" and block.figures.get(metric) == 0.0 and block.figures.get("duration_s"):
        return 0.5 / block.figures["duration_s"]
    return value_of(block.figures, metric)


def length_shift(pair: Pair) -> float | None:
    """Log-ratio of mean answer lengths."""
    shift = Objective("answer_tokens", "higher")
    before, after = (value_of(block.figures, "answer_tokens") for block in _sides(pair))
    return None if before is None or after is None else shift.gain(before, after)


def mean_figure(blocks: Sequence[Block], metric: str) -> float | None:
    """A figure's mean over blocks that have it."""
    values = [block.figures[metric] for block in blocks if metric in block.figures]
    return statistics.fmean(values) if values else None


def mean_figures(blocks: Sequence[Block]) -> Mapping[str, float]:
    """All figures that the first block has, as means."""
    names = blocks[0].figures if blocks else {}
    return {name: mean for name in names if (mean := mean_figure(blocks, name)) is not None}
