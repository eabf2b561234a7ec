"""The seam of quality: a Suite makes items from a seed and scores what an engine answered.

`evaluate` runs any suite over any engine; `compare` judges two of its reports. A suite that has to look inside the
engine (perplexity, divergence) is a `Probe`: it measures each item itself instead of scoring an answer. Neither knows
profiles, servers or who asks.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from temper.asking import Answer
from temper.engines.base import Engine
from temper.measure.stats.verdict import Better
from temper.types import Request


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure that a suite finds on every item."""

    name: str
    meaning: str
    """What the figure says, and what it does not."""
    better: Better = "higher"
    kind: Literal["share", "mean"] = "mean"
    """`share`: every item scores 0 or 1, so that intervals are those of a proportion."""
    worst: float | None = 0.0
    """What an item without an answer scores; None: it is left out, and counted as a failure."""
    bounds: tuple[float, float] | None = (0.0, 1.0)
    """Lowest and highest score an item can have; None: unbounded."""
    margin: float = 0.02
    """The difference for the worse that still counts as none, in the metric's own unit."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question, and what its suite needs to score the answer."""

    id: str
    """The same seed gives the same ids in the same order, so that two reports can be paired."""
    request: Request
    reference: Any = None


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def metrics(self) -> tuple[Metric, ...]: ...
    def items(self, seed: int, count: int) -> Sequence[Item]: ...


class Suite(_Named, Protocol):
    """Questions with a way to score answers. The first of `metrics` is the one that verdicts are about.

    `items` is pure: the same (seed, count) gives the same items, and a larger count only adds to them. It may give
    fewer than `count` where the suite has no more. `score` is plain and may block: it is called in a thread, and
    returns a value for every metric.
    """

    def score(self, item: Item, answer: Answer) -> Mapping[str, float]:
        """The answer's value by metric."""
        ...


@runtime_checkable
class Probe(_Named, Protocol):
    """A suite that questions the engine itself."""

    async def measure(self, engine: Engine, item: Item) -> Mapping[str, float]:
        """The item's value by metric; raises `Unsupported` where the engine cannot tell."""
        ...


@runtime_checkable
class Noted(Protocol):
    """A suite with something to say beside its figures: the isolation reached, where its data come from."""

    def notes(self) -> Mapping[str, Any]:
        """Plain data for the report; asked for when all items are scored."""
        ...


def draw(*key: object) -> random.Random:
    """Random numbers that belong to `key`, whatever was drawn before: one stream an item."""
    return random.Random("/".join(map(str, key)))


def request_seed(seed: int, name: str, index: int) -> int:
    """The sampling seed of one item; 31 bits, which every server takes."""
    return draw(seed, name, index, "sampling").getrandbits(31)
