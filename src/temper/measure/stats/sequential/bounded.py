"""Confidence sequences for the mean of values within known limits, such as scores: no assumption on their shape.

Both are from Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting, JRSS-B 86(1), 2024:
hedged capital (theorem 3) with predictable plug-in bets (equation 26), tight; and the predictable plug-in empirical
Bernstein sequence (theorem 2; after Howard et al., Ann. Statist. 49(2), 2021), wider, with a state of seven numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from temper.errors import Invalid

Interval = tuple[float, float]

GRID = 1000
"""Means that the hedged capital is kept for; bounds are told to 1/1000 of the range, rounded outward."""
MOST_RISK = 0.5
"""Of the wealth that a single value may take away."""


class BoundedMean:
    """Hedged capital: for each possible mean, one gambler bets that the truth is above and one that it is below.

    `batch` is the shape of an array of experiments that are watched at once; () for one. The bets are tuned to
    `alpha`, so it is given at the start; the intervals are for that alpha.
    """

    def __init__(self, alpha: float, low: float = 0.0, high: float = 1.0, batch: tuple[int, ...] = ()) -> None:
        if not low < high:
            raise Invalid(f"the limits of a bounded mean must differ and ascend, not {low:g} and {high:g}", param="low")
        self.alpha, self.low, self.high = alpha, low, high
        self._grid = np.arange(1, GRID) / GRID
        self._above = np.zeros((*batch, GRID - 1))
        self._below = np.zeros((*batch, GRID - 1))
        self._count = 0
        self._sum = np.zeros(batch)
        self._squares = np.zeros(batch)

    def observe(self, value: Any) -> None:
        """One more value (or one per experiment).

        Raises:
            Invalid: a value outside the limits, for which nothing would hold.
        """
        x = (np.asarray(value, dtype=float) - self.low) / (self.high - self.low)
        if not ((x >= 0) & (x <= 1)).all():
            raise Invalid(f"values must lie within {self.low:g} and {self.high:g}, not {value}", param="value")
        t = self._count + 1
        variance = (0.25 + self._squares) / t
        bet = np.sqrt(2 * math.log(2 / self.alpha) / (variance * t * math.log(1 + t)))[..., None]
        grid, gain = self._grid, x[..., None] - self._grid
        self._above += np.log1p(np.minimum(bet, MOST_RISK / grid) * gain)
        self._below += np.log1p(-np.minimum(bet, MOST_RISK / (1 - grid)) * gain)
        self._count = t
        self._sum = self._sum + x
        self._squares = self._squares + (x - (0.5 + self._sum) / (t + 1)) ** 2

    @property
    def estimate(self) -> Any:
        """The mean so far (or one per experiment); None without values."""
        return self.low + (self.high - self.low) * self._sum / self._count if self._count else None

    def bounds(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Lower and upper ends, per experiment."""
        needed = math.log(2 / self.alpha)
        refuted_below = (self._above >= needed).sum(axis=-1)  # wealth falls with the mean: the first ones
        refuted_above = (self._below >= needed).sum(axis=-1)
        width = self.high - self.low
        return self.low + width * refuted_below / GRID, self.high - width * refuted_above / GRID

    def interval(self) -> Interval:
        """Within which the mean lies, at all looks together, with confidence 1 − alpha."""
        low, high = self.bounds()
        return float(low), float(high)

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "alpha": self.alpha,
            "low": self.low,
            "high": self.high,
            "count": self._count,
            "sum": self._sum.tolist(),
            "squares": self._squares.tolist(),
            "above": self._above.tolist(),
            "below": self._below.tolist(),
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """From `state()`."""
        found = cls(float(state["alpha"]), float(state["low"]), float(state["high"]))
        found._count = int(state["count"])
        found._sum, found._squares = np.array(state["sum"]), np.array(state["squares"])
        found._above, found._below = np.array(state["above"]), np.array(state["below"])
        return found


@dataclass(slots=True)
class EmpiricalBernstein:
    """The closed form: cheaper and wider than hedged capital."""

    alpha: float
    low: float = 0.0
    high: float = 1.0
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    weights: float = 0.0
    weighted: float = 0.0
    penalty: float = 0.0

    def observe(self, value: float) -> None:
        """One more value.

        Raises:
            Invalid: it lies outside the limits.
        """
        if not self.low <= value <= self.high:
            raise Invalid(f"values must lie within {self.low:g} and {self.high:g}, not {value}", param="value")
        x = (value - self.low) / (self.high - self.low)
        t = self.count + 1
        variance = (0.25 + self.squares) / t
        mean = (0.5 + self.total) / t
        weight = min(MOST_RISK, math.sqrt(2 * math.log(2 / self.alpha) / (variance * t * math.log(1 + t))))
        self.weights += weight
        self.weighted += weight * x
        self.penalty += (x - mean) ** 2 * (-math.log1p(-weight) - weight)
        self.count = t
        self.total += x
        self.squares += (x - (0.5 + self.total) / (t + 1)) ** 2

    def interval(self) -> Interval:
        """Within which the mean lies, at all looks together, with confidence 1 − alpha."""
        if not self.count:
            return self.low, self.high
        centre = self.weighted / self.weights
        half = (math.log(2 / self.alpha) + self.penalty) / self.weights
        width = self.high - self.low
        return self.low + width * max(0.0, centre - half), self.low + width * min(1.0, centre + half)

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """From `state()`."""
        return cls(**state)
