"""Confidence sequences for means of unbounded values: latencies on a log scale, tokens per second.

A mixture sequential probability ratio test whose variance is estimated: the likelihood ratio of Student's t,
averaged over a normal prior on the standardised effect. By invariance it is a test martingale under normal data with
unknown variance, exactly, from the third value on (Lai, Ann. Statist. 4, 1976; Wang & Ramdas, Anytime-valid t-tests and
confidence sequences for Gaussian means with unknown variance, Sequential Analysis 44(1), 2025; the known-variance
case is the mSPRT of Johari et al., Operations Research 70(3), 2022). For other data it holds as the central limit
theorem does; so give it logs, and blocks rather than single tokens.

Between two arms it goes with Welch's standard error and degrees of freedom, or with the slope of a regression on the
draw, which is a martingale (Waudby-Smith et al., Time-uniform central limit theory and asymptotic confidence sequences,
Ann. Statist. 52(6), 2024). The closed form is that of Gönen et al., American Statistician 59, 2005.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from temper.errors import Invalid

Interval = tuple[float, float]

PLANNED_UNITS = 200
"""Where the interval is narrowest compared with what it could be, unless a plan says otherwise."""
MEMORY = 50
"""Units that the moving mean of two arms looks back on: it follows the hours, and adds 1 % to the spread."""
FEWEST = 3
"""Values without which a variance says nothing."""


def half_width(standard_error: Any, freedom: Any, num_effective: Any, alpha: float, planned: float) -> NDArray[Any]:
    """Half the width of the sequence around the estimate at this look; arrays of experiments are welcome.

    `num_effective` is n for one mean, 1/(1/n_a + 1/n_b) or Σ(in B − share)² for two; `planned` is its value at the end
    of the plan. Infinite where nothing can be said yet.
    """
    variance = _prior_variance(alpha, planned)  # of the standardised effect
    shrunk = 1 / (1 + np.asarray(num_effective, dtype=float) * variance)
    freedom = np.maximum(freedom, 1e-9)
    bar = np.exp(2 * (-np.log(alpha) - np.log(shrunk) / 2) / (freedom + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(bar * shrunk < 1, (bar - 1) / (1 - bar * shrunk), np.inf)
        width: NDArray[Any] = np.where(standard_error > 0, standard_error * np.sqrt(freedom * reach), np.inf)
    return width


def _prior_variance(alpha: float, planned: float) -> float:
    """That which makes the sequence narrowest at `planned`: the minimum over v of (1 + 1/nv)·log((1 + nv)/α²)."""
    information = 1.0
    for _ in range(60):  # fixed point of nv = log((1 + nv)/α²): its slope is below 1, so it converges
        information = math.log((1 + information) / alpha**2)
    return information / planned


@dataclass(slots=True)
class Moments:
    """Count, mean and sum of squared deviations, kept by Welford's recurrence."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """One more value.

        Raises:
            Invalid: it is not finite: one such value would spoil every later look.
        """
        if not math.isfinite(value):
            raise Invalid(f"a mean takes finite values, but {value} was observed", param="value")
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)

    @property
    def variance(self) -> float:
        """Unbiased; 0 with fewer than two values."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0


@dataclass(slots=True)
class Mean:
    """The mean of independent, about normal values: differences of logs of pairs, for instance."""

    planned_units: float = PLANNED_UNITS
    seen: Moments = field(default_factory=Moments)

    def observe(self, value: float) -> None:
        """One more unit."""
        self.seen.add(value)

    @property
    def estimate(self) -> float | None:
        """The mean so far."""
        return self.seen.mean if self.seen.count else None

    def interval(self, alpha: float) -> Interval:
        """Within which the mean lies, at all looks together, with confidence 1 − `alpha`."""
        seen = self.seen
        if seen.count < FEWEST:
            return -math.inf, math.inf
        error = math.sqrt(seen.variance / seen.count)
        half = float(half_width(error, seen.count - 1, seen.count, alpha, self.planned_units))
        return seen.mean - half, seen.mean + half

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {"planned_units": self.planned_units, "seen": _plain(self.seen)}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """From `state()`."""
        return cls(float(state["planned_units"]), _moments(state["seen"]))


@dataclass(slots=True)
class MeanDifference:
    """Mean of B − mean of A, Welch's way: for arms that have the same share of every moment, from first to last.

    Begin a new one when the share changes: B, asked more in the later hours, would be taken for what those hours are.
    `DrawnDifference` has no such limit. On logs, `ratio` makes an effect of the interval. Says nothing before both
    arms have `fewest` values.
    """

    planned_units: float = 2 * PLANNED_UNITS
    """Of both arms together, at even shares."""
    fewest: int = 10
    a: Moments = field(default_factory=Moments)
    b: Moments = field(default_factory=Moments)

    def observe(self, value: float, *, in_b: bool) -> None:
        """One more unit of an arm."""
        (self.b if in_b else self.a).add(value)

    @property
    def estimate(self) -> float | None:
        """Difference of the means so far; None while an arm has no value."""
        return self.b.mean - self.a.mean if self.a.count and self.b.count else None

    @property
    def num_units(self) -> tuple[int, int]:
        """Units of A and of B."""
        return self.a.count, self.b.count

    def interval(self, alpha: float) -> Interval:
        """Within which B − A lies, at all looks together, with confidence 1 − `alpha`."""
        a, b = self.a, self.b
        if min(a.count, b.count) < max(self.fewest, FEWEST):
            return -math.inf, math.inf
        half = float(
            difference_half_width(a.count, a.variance, b.count, b.variance, alpha, planned_units=self.planned_units)
        )
        return b.mean - a.mean - half, b.mean - a.mean + half

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "planned_units": self.planned_units,
            "fewest": self.fewest,
            "a": _plain(self.a),
            "b": _plain(self.b),
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """From `state()`."""
        return cls(float(state["planned_units"]), int(state["fewest"]), _moments(state["a"]), _moments(state["b"]))


def difference_half_width(
    num_a: Any, variance_a: Any, num_b: Any, variance_b: Any, alpha: float, *, planned_units: float
) -> NDArray[Any]:
    """Half the width of the sequence around mean B − mean A; arrays of experiments are welcome."""
    part_a, part_b = np.asarray(variance_a / num_a, dtype=float), np.asarray(variance_b / num_b, dtype=float)
    squared = part_a + part_b
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = squared**2 / (part_a**2 / (num_a - 1) + part_b**2 / (num_b - 1))  # Welch–Satterthwaite
    effective = 1 / (1 / num_a + 1 / num_b)
    return half_width(np.sqrt(squared), np.nan_to_num(freedom), effective, alpha, planned_units / 4)


@dataclass(slots=True)
class DrawnDifference:
    """Mean of B − mean of A, where chance decided for each unit which arm it went to; on logs, `ratio` makes an effect
    of the interval.

    The difference is the slope of (value − centre) on (in B − share): the centre is a moving mean of what came before,
    so given the past the product of the two has the difference as its mean, because the draw is new. So drift,
    autocorrelation and a share that grows while the machine changes do no harm; pooled means of the arms would take
    each of these for a difference. Its spread is that of the residuals, arm by arm as they are (White's estimator).

    Says nothing before both arms have `fewest` values.
    """

    planned_units: float = 2 * PLANNED_UNITS
    """Of both arms together, at even shares."""
    fewest: int = 10
    num_a: int = 0
    num_b: int = 0
    centre: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * 5)
    """Of z², z·r, z²·r², z³·r, z⁴ with z = in B − share and r = value − centre."""

    def observe(self, value: float, *, in_b: bool, share: float) -> None:
        """One more unit, which had the chance `share` of going to B.

        Raises:
            Invalid: the value is not finite, or the share is 0 or 1: without a draw there is nothing to compare with.
        """
        if not math.isfinite(value):
            raise Invalid(f"a mean takes finite values, but {value} was observed", param="value")
        if not 0 < share < 1:
            raise Invalid(f"a comparison needs both arms, but B's share is {share:g}", param="share")
        if not self.num_a + self.num_b:
            self.centre = value
        z, r = in_b - share, value - self.centre
        self.sums = [
            total + new for total, new in zip(self.sums, (z**2, z * r, (z * r) ** 2, z**3 * r, z**4), strict=True)
        ]
        self.num_b += in_b
        self.num_a += not in_b
        self.centre += (value - self.centre) / min(self.num_a + self.num_b, MEMORY)

    @property
    def estimate(self) -> float | None:
        """The difference so far; None while an arm has no value."""
        return self.sums[1] / self.sums[0] if self.num_a and self.num_b else None

    @property
    def num_units(self) -> tuple[int, int]:
        """Units of A and of B."""
        return self.num_a, self.num_b

    def interval(self, alpha: float) -> Interval:
        """Within which B − A lies, at all looks together, with confidence 1 − `alpha`."""
        if min(self.num_a, self.num_b) < max(self.fewest, FEWEST):
            return -math.inf, math.inf
        slope, half = (float(found) for found in _slope(self.sums, alpha, self.planned_units))
        return slope - half, slope + half

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """From `state()`."""
        return cls(**state)


def running_difference(
    values: NDArray[Any], in_b: NDArray[Any], share: Any, alpha: float, *, planned_units: float = 2 * PLANNED_UNITS,
    fewest: int = 10,
) -> tuple[NDArray[Any], NDArray[Any]]:  # fmt: skip
    """What `DrawnDifference` would say at every look of many experiments: estimate and half the interval's width.

    `values` and `in_b` are (experiments, units); `share` is one number, or one for each unit.
    """
    rest = np.zeros(values.shape)
    centre = values[:, 0].astype(float)
    for at in range(1, values.shape[1]):
        rest[:, at] = values[:, at] - centre
        centre = centre + rest[:, at] / min(at + 1, MEMORY)
    z = in_b - np.asarray(share, dtype=float)
    sums = [part.cumsum(axis=1) for part in (z**2, z * rest, (z * rest) ** 2, z**3 * rest, z**4)]
    slope, half = _slope(sums, alpha, planned_units)
    num_b = in_b.cumsum(axis=1)
    smaller = np.minimum(num_b, np.arange(1, values.shape[1] + 1) - num_b)
    return slope, np.where(smaller >= max(fewest, FEWEST), half, np.inf)


def _slope(sums: Sequence[Any], alpha: float, planned_units: float) -> tuple[Any, NDArray[Any]]:
    """The slope and half the width of its sequence, from `DrawnDifference.sums`."""
    z2, zr, z2r2, z3r, z4 = sums
    slope = zr / z2
    residuals = np.maximum(z2r2 - 2 * slope * z3r + slope**2 * z4, 0)  # Σ z²(r − slope·z)²
    effective = z2**2 / z4  # as many units of equal weight
    freedom = np.maximum(effective - 1, 1e-9)
    error = np.sqrt(residuals * effective / freedom) / z2
    return slope, half_width(error, freedom, z2, alpha, planned_units / 4)


def ratio(interval: Interval) -> Interval:
    """An interval of a difference of logs as one of the effect B/A − 1."""
    return math.expm1(min(interval[0], 700.0)), math.expm1(min(interval[1], 700.0)) if interval[1] < 700 else math.inf


def _plain(moments: Moments) -> list[float]:
    return [moments.count, moments.mean, moments.squares]


def _moments(state: list[float]) -> Moments:
    return Moments(int(state[0]), float(state[1]), float(state[2]))
