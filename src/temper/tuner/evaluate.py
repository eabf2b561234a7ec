"""What a study asks of whoever measures for it, and what comes back.

A `Task` says what to measure: a point of the space, on which slot, with which seed. A `Block` is the answer, good
or bad: an engine that crashes, hangs or talks nonsense is an answer too, and never an exception. `live` measures real
engines, `simulated` plays recorded or invented ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from temper.tuner.space import Point

Slot = Literal["incumbent", "candidate"]
"""Which of the two engines that a study holds at a time."""
Kind = Literal["load", "quality"]

TROUBLES: dict[str, str] = {
    "unfit": "the memory model says that it cannot fit; it was not started",
    "refused": "the engine will not run this profile",
    "crash": "the engine's process ended",
    "out_of_memory": "memory ran out",
    "hang": "no end within the time allowed",
    "garbage": "what it says is no text",
    "failures": "too many requests failed",
}
"""Every way in which a point can be impossible, and what it means."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a point could not be measured."""

    kind: str
    """One of `TROUBLES`."""
    reason: str
    """What was seen, for people."""


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to measure."""

    key: str
    """Where in the study it stands, such as `trial-7/1/candidate`: the same key never asks for anything else."""
    point: Point
    slot: Slot
    seed: int
    """Of prompts, lengths and arrival times; the two sides of a pair have the same."""
    kind: Kind = "load"
    fresh: bool = False
    """Start a new engine even where the one at hand would do: starts are what a confirmation repeats."""
    count: int | None = None
    """Requests of load, or items of quality; None: as the workload or the evaluator has it."""
    beside: Point | None = None
    """What the other side of the pair is: a recording keeps both sides of a pair from the same minute."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one task found."""

    figures: Mapping[str, float] = field(default_factory=dict)
    """By dotted name, such as `ttft_ms.p90`; percentiles of one block are estimates, never claims."""
    num_requests: int = 0
    num_failed: int = 0
    misses: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By the name of each limit on a percentile: how many values are beyond it, and how many there are. Failed
    requests are beyond all."""
    seconds: float = 0.0
    """What measuring took, without the start."""
    start_s: float = 0.0
    """What bringing the engine up took; 0 where it was up, or was changed hot."""
    trouble: Trouble | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of a quality task: the score of each item by its id."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What `auto` came to; of a quality task `suite` and `metric`: kept as evidence."""

    def document(self) -> dict[str, Any]:
        """Plain data for JSON; `block` reads it back."""
        return asdict(self)


def block(document: Mapping[str, Any]) -> Block:
    """The block that `Block.document` wrote."""
    trouble = document.get("trouble")
    return Block(
        **{
            **document,
            "trouble": None if trouble is None else Trouble(**trouble),
            "misses": {name: (hits, total) for name, (hits, total) in document.get("misses", {}).items()},
        }
    )


class Evaluator(Protocol):
    """Measures for a study. One task at a time."""

    async def measure(self, task: Task) -> Block:
        """Do one task. Trouble with the engine is an answer; an exception means that measuring itself is broken."""

    def describe(self) -> Mapping[str, Any]:
        """What is measured and how, for the report: workload, suite, limits."""

    async def close(self) -> None:
        """Stop whatever still runs."""
