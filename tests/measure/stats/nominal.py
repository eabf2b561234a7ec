"""What simulations of a method are held to: no more errors than its α allows, by the 99 % binomial bound."""

from __future__ import annotations

from scipy.stats import binom


def most_errors(alpha: float, num_runs: int) -> int:
    """Errors in `num_runs` that a method with error rate `alpha` exceeds once in 100 such tests: 67 of 1,000 at 5 %."""
    return int(binom.ppf(0.99, num_runs, alpha))


def fewest_found(power: float, num_runs: int) -> int:
    """Finds in `num_runs` that a method with this power falls short of once in 100 such tests."""
    return int(binom.ppf(0.01, num_runs, power))
