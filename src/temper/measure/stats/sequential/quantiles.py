"""Confidence sequences for quantiles of latencies, and for the ratio of two arms' quantiles.

Whether a value is at most the true p-quantile is a coin with chance p; a value is refuted as the quantile when the
share of values up to it is refuted as p (Howard & Ramdas, Sequential estimation of quantiles with applications to A/B
testing, Bernoulli 28(3), 2022, theorem 1; the coin is judged by `bets` in place of their beta mixture). Values are
counted in bins of 1 % width, so the state does not grow with the sample; ends are rounded outward to a bin's edge.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

import numpy as np

from temper.errors import Invalid
from temper.measure.stats.sequential.bets import Seen, log_wealth

Interval = tuple[float, float]

BIN_WIDTH = math.log(1.01)
"""On the log scale."""
LEAST = 1e-9
"""Smaller values, 0 among them, count as this one."""


@dataclass(slots=True)
class Quantile:
    """A quantile of values that are not negative."""

    percent: float
    bins: dict[int, int] = field(default_factory=dict)
    """Count per bin; bin i holds values in [1.01^i, 1.01^(i+1))."""

    def observe(self, value: float) -> None:
        """One more value.

        Raises:
            Invalid: it is negative or not a number. Infinity is welcome: a request that never ended.
        """
        if not value >= 0:
            raise Invalid(f"a quantile of latencies takes values of 0 and more, but {value} came", param="value")
        number = math.floor(math.log(max(value, LEAST)) / BIN_WIDTH) if value < math.inf else _NEVER
        self.bins[number] = self.bins.get(number, 0) + 1

    @property
    def count(self) -> int:
        """Values so far."""
        return sum(self.bins.values())

    @property
    def estimate(self) -> float | None:
        """The observed quantile, within 1 %."""
        if not self.bins:
            return None
        numbers, cumulated = self._cumulated()
        return _middle(numbers[int(np.searchsorted(cumulated, math.ceil(cumulated[-1] * self.percent / 100)))])

    def interval(self, alpha: float) -> Interval:
        """Within which the quantile lies, at all looks together, with confidence 1 − `alpha`."""
        if not self.bins:
            return 0.0, math.inf
        numbers, cumulated = self._cumulated()
        too_few, too_many = _ranks(int(cumulated[-1]), self.percent, alpha)
        # Bins up to whose upper edge too few values lie come first, those with too many come last. The last bin holds
        # all values, so there is always one that is not too few.
        num_few = int(np.searchsorted(cumulated, too_few, side="right"))
        first_many = int(np.searchsorted(cumulated, too_many, side="left"))
        low = _edge(numbers[num_few]) if num_few else 0.0
        high = _edge(numbers[first_many] + 1) if first_many < len(numbers) else math.inf
        return low, high

    def _cumulated(self) -> tuple[list[int], np.ndarray[Any, Any]]:
        numbers = sorted(self.bins)
        return numbers, np.cumsum([self.bins[number] for number in numbers])

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {"percent": self.percent, "bins": [[number, count] for number, count in sorted(self.bins.items())]}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """From `state()`."""
        return cls(float(state["percent"]), {int(number): int(count) for number, count in state["bins"]})


_NEVER = 1 << 40
"""The bin of infinity."""


@lru_cache(maxsize=1 << 16)
def _ranks(total: int, percent: float, alpha: float) -> tuple[int, int]:
    """Of `total` values, the most up to a point that are too few for it to be the quantile, and the fewest too many.

    -1 and total + 1 where no number is. They depend on nothing that was observed, so all experiments share them.
    """
    share, needed = percent / 100, math.log(2 / alpha)

    def is_too_few(up_to: int) -> bool:
        return float(log_wealth([Seen((-1.0, 0.0), np.array([up_to, total - up_to]))], -share)) >= needed

    def is_too_many(up_to: int) -> bool:
        return float(log_wealth([Seen((0.0, 1.0), np.array([total - up_to, up_to]))], share)) >= needed

    too_few = bisect.bisect_left(range(total + 1), True, key=lambda up_to: not is_too_few(up_to)) - 1
    return too_few, bisect.bisect_left(range(total + 1), True, key=is_too_many)


def _edge(number: int) -> float:
    return math.inf if number >= _NEVER else math.exp(number * BIN_WIDTH)


def _middle(number: int) -> float:
    return math.inf if number >= _NEVER else math.exp((number + 0.5) * BIN_WIDTH)


@dataclass(slots=True)
class QuantileRatio:
    """Effect of B on a quantile, B/A − 1: each arm's sequence at half of alpha, put together.

    Both arms must have the same share of every moment: begin a new one when the share changes.
    """

    percent: float
    a: Quantile = field(init=False)
    b: Quantile = field(init=False)

    def __post_init__(self) -> None:
        self.a, self.b = Quantile(self.percent), Quantile(self.percent)

    def observe(self, value: float, *, in_b: bool) -> None:
        """One more unit of an arm."""
        (self.b if in_b else self.a).observe(value)

    @property
    def estimate(self) -> float | None:
        """Effect on the observed quantiles; None while an arm has no value."""
        a, b = self.a.estimate, self.b.estimate
        return None if a is None or b is None or not math.isfinite(a) else b / a - 1

    @property
    def num_units(self) -> tuple[int, int]:
        """Units of A and of B."""
        return self.a.count, self.b.count

    def interval(self, alpha: float) -> Interval:
        """Within which the effect lies, at all looks together, with confidence 1 − `alpha`."""
        (low_a, high_a), (low_b, high_b) = self.a.interval(alpha / 2), self.b.interval(alpha / 2)
        low = low_b / high_a - 1 if math.isfinite(high_a) and low_b > 0 else -1.0
        high = high_b / low_a - 1 if low_a > 0 else math.inf
        return low, high

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {"percent": self.percent, "a": self.a.state(), "b": self.b.state()}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """From `state()`."""
        found = cls(float(state["percent"]))
        found.a, found.b = Quantile.restored(state["a"]), Quantile.restored(state["b"])
        return found
