"""What a test found, before anybody judges it: the effect of B against A, its interval, and how surprising it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """B against A in one metric."""

    effect: float | None
    """B/A − 1, or B − A of rates and scores; None where nothing could be estimated, and `reason` says why."""
    interval: tuple[float, float] | None
    """Of the effect, at `confidence`; None where the sample cannot carry one."""
    confidence: float
    method: str
    """The test by its standard name."""
    num_units: int
    """Pairs, or units of the smaller arm."""
    p_higher: float | None = None
    """One-sided: how likely an effect this high, or higher, is where B is not above A."""
    p_lower: float | None = None
    """One-sided: how likely an effect this low, or lower, is where B is not below A."""
    reason: str = ""
    """Why there is no effect or no interval."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Effect size, means, secondary tests."""

    def p_worse(self, better: str) -> float | None:
        """One-sided, of B being worse."""
        return self.p_higher if better == "lower" else self.p_lower
