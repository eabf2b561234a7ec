"""Confidence sequences for rates: one rate, the difference between two arms, and the difference on the same items.

A rate is of something rare (failures, wrong answers, misses of an SLO). All three are `bets` on counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from temper.errors import Invalid
from temper.measure.stats.sequential.bets import Seen, bounds, log_wealth, mirrored

Interval = tuple[float, float]


@dataclass(slots=True)
class Rate:
    """The chance of a hit."""

    hits: int = 0
    total: int = 0

    def observe(self, hit: bool) -> None:
        """One more unit."""
        self.hits += hit
        self.total += 1

    def interval(self, alpha: float) -> Interval:
        """Within which the rate lies, at all looks together, with confidence 1 − `alpha`."""
        low, high = bounds([self._seen()], alpha, 0.0, 1.0)
        return float(low), float(high)

    def evidence_above(self, rate: float) -> float:
        """Log of the wealth of who bets that the rate is above `rate`: refuted at α once it reaches log(1/α)."""
        return float(log_wealth([self._seen()], rate))

    def _seen(self) -> Seen:
        return Seen((0.0, 1.0), np.array([self.total - self.hits, self.hits]))

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {"hits": self.hits, "total": self.total}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """From `state()`."""
        return cls(int(state["hits"]), int(state["total"]))


@dataclass(slots=True)
class RateDifference:
    """Rate of arm B − rate of arm A, where chance decided for each unit which arm it went to.

    Every unit scores (hit − expected)/share where it went to B and −(hit − expected)/(1 − share) where it went to
    A: inverse-probability weighting. Given the past, the score's mean is the difference, because the draw is new;
    so drift and autocorrelation do no harm, units of both arms count, and the share may change between units (never
    because of what the unit itself is like). With a small share the many units of A help: a B that fails 1 %
    against a clean A is found with fewer of its own units than at even shares.
    """

    expected: float = 0.0
    """The rate in A, about: a guess made before, that makes the interval narrower where rates are not near 0."""
    counts: dict[float, list[int]] = field(default_factory=dict)
    """Per share of B: A without and with a hit, B without and with a hit."""

    def observe(self, hit: bool, *, in_b: bool, share: float) -> None:
        """One more unit, which had the chance `share` of going to B.

        Raises:
            Invalid: the share is 0 or 1: without a draw there is nothing to compare with.
        """
        if not 0 < share < 1:
            raise Invalid(f"a comparison needs both arms, but B's share is {share:g}", param="share")
        self.counts.setdefault(share, [0, 0, 0, 0])[2 * in_b + hit] += 1

    @property
    def estimate(self) -> float | None:
        """Difference of the observed rates; None while an arm has no unit."""
        a, a_hits, b, b_hits = (sum(cells[index] for cells in self.counts.values()) for index in range(4))
        return None if not (a + a_hits and b + b_hits) else b_hits / (b + b_hits) - a_hits / (a + a_hits)

    @property
    def num_units(self) -> tuple[int, int]:
        """Units of A and of B."""
        cells = self.counts.values()
        return sum(cell[0] + cell[1] for cell in cells), sum(cell[2] + cell[3] for cell in cells)

    def interval(self, alpha: float) -> Interval:
        """Within which B − A lies, at all looks together, with confidence 1 − `alpha`."""
        if not self.counts:
            return -1.0, 1.0
        low, high = bounds(self._seen(), alpha, -1.0, 1.0)
        return float(low), float(high)

    def evidence_above(self, difference: float) -> float:
        """Log of the wealth of who bets that B − A is above `difference`."""
        return float(log_wealth(self._seen(), difference)) if self.counts else 0.0

    def evidence_below(self, difference: float) -> float:
        """Log of the wealth of who bets that B − A is below `difference`."""
        return float(log_wealth(mirrored(self._seen()), -difference)) if self.counts else 0.0

    def _seen(self) -> list[Seen]:
        return [Seen(scores(share, self.expected), np.array(cells)) for share, cells in self.counts.items()]

    def state(self) -> dict[str, Any]:
        """Plain data."""
        rows = [[share, *cells] for share, cells in self.counts.items()]
        return {"expected": self.expected, "counts": rows}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """From `state()`."""
        rows: Sequence[Sequence[float]] = state["counts"]
        return cls(float(state["expected"]), {float(row[0]): [int(count) for count in row[1:]] for row in rows})


def scores(share: float, expected: float) -> tuple[float, float, float, float]:
    """What a unit of A without and with a hit, and of B without and with a hit, scores for the difference B − A."""
    return expected / (1 - share), -(1 - expected) / (1 - share), -expected / share, (1 - expected) / share


@dataclass(slots=True)
class PairedRateDifference:
    """Rate of B − rate of A on the same items: only items on which they differ say something (as in McNemar's test)."""

    only_a: int = 0
    only_b: int = 0
    alike: int = 0

    def observe(self, hit_a: bool, hit_b: bool) -> None:
        """One more item."""
        self.only_a += hit_a and not hit_b
        self.only_b += hit_b and not hit_a
        self.alike += hit_a == hit_b

    @property
    def estimate(self) -> float | None:
        """Difference of the observed rates."""
        total = self.only_a + self.only_b + self.alike
        return None if not total else (self.only_b - self.only_a) / total

    def interval(self, alpha: float) -> Interval:
        """Within which B − A lies, at all looks together, with confidence 1 − `alpha`."""
        low, high = bounds([self._seen()], alpha, -1.0, 1.0)
        return float(low), float(high)

    def _seen(self) -> Seen:
        return Seen((-1.0, 0.0, 1.0), np.array([self.only_a, self.alike, self.only_b]))

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {"only_a": self.only_a, "only_b": self.only_b, "alike": self.alike}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """From `state()`."""
        return cls(int(state["only_a"]), int(state["only_b"]), int(state["alike"]))
