"""The sequential tests under simulation: false verdicts of A/A when looked at after every request, and how many
requests a decision takes beside a test of a size fixed before.

1. A/A: 1,000 experiments of 2,000 requests, B's share growing 5 → 25 → 50 %, α = 5 %: at most 67 may be told apart
   (the 99 % bound of the binomial). Failures in bursts, latencies autocorrelated or skewed.
2. Planted: B fails 1 % against a clean A, is 20 % slower, errs 3 points more often. Requests until that is known,
   beside the requests that a fixed-sample test of power 0.97 at the same share and α would be planned with.

    make prove statistics
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binom, norm

import report
from temper.measure.stats.sequential.bets import Seen, log_wealth, mirrored
from temper.measure.stats.sequential.means import running_difference
from temper.measure.stats.sequential.quantiles import QuantileRatio
from temper.measure.stats.sequential.rates import scores

ALPHA, RUNS, CHUNK = 0.05, 1000, 100
STEPS = np.repeat([0.05, 0.25, 0.5], [700, 600, 700])
POWER = 0.97

Observe = Callable[[np.random.Generator, int], np.ndarray]
"""(runs, requests) of what is observed."""


def main() -> None:
    alike = [
        {"metric": "failures, in bursts", "told apart": told_apart(bursts, by_rate)},
        {"metric": "latency, independent", "told apart": told_apart(correlated(0.0), by_mean)},
        {
            "metric": "latency, autocorrelated 0.95",
            "told apart": told_apart(correlated(0.95), by_mean),
        },
        {"metric": "latency, logs skewed (gamma, shape 2)", "told apart": told_apart(skewed, by_mean)},
        {
            "metric": "P90, autocorrelated 0.9, share 25 %, every 200",
            "told apart": quantiles_told_apart(),
        },
    ]
    allowed = int(binom.ppf(0.99, RUNS, ALPHA))
    for row in alike:
        row |= {"of": RUNS, "allowed": allowed, "holds": row["told apart"] <= allowed}
    planted = [fails_more(), slower(), errs_more()]
    body = f"""## A against A

{RUNS:,} experiments of {len(STEPS):,} requests, looked at after every one; B's share grows from 5 % to 50 %;
α = {ALPHA:.0%}.

{report.table(alike)}

## Planted

Requests of both arms until the interval leaves 0 (median, and that within which {POWER:.0%} decide), beside a
fixed-sample test of power {POWER:.0%} at the same share and α.

{report.table(planted)}
"""
    path = report.write("statistics", "Sequential tests under simulation", body, {"alike": alike, "planted": planted})
    print(f"{body}\n{path}")
    if not all(row["holds"] for row in alike):
        raise SystemExit("a test tells alike arms apart oftener than its α")


# -- what is observed --------------------------------------------------------------------------------


def bursts(rng: np.random.Generator, runs: int) -> np.ndarray:
    """Failures in bursts of about 50 requests, growing more frequent."""
    bad, now = np.zeros((runs, len(STEPS)), dtype=bool), np.zeros(runs, dtype=bool)
    for at in range(len(STEPS)):
        now = np.where(now, rng.random(runs) < 0.98, rng.random(runs) < 0.001 * (1 + at / len(STEPS)))
        bad[:, at] = now
    return bad & (rng.random(bad.shape) < 0.6)


def correlated(memory: float) -> Observe:
    """Logs of latencies, each like the one before by `memory`."""

    def observe(rng: np.random.Generator, runs: int) -> np.ndarray:
        values, now = np.empty((runs, len(STEPS))), rng.normal(size=runs)
        for at in range(len(STEPS)):
            now = memory * now + math.sqrt(1 - memory**2) * rng.normal(size=runs)
            values[:, at] = 0.4 * now
        return values

    return observe


def skewed(rng: np.random.Generator, runs: int) -> np.ndarray:
    return 0.3 * rng.gamma(2, 1, (runs, len(STEPS)))


# -- looks after every request -----------------------------------------------------------------------


def told_apart(observe: Observe, looks: Any) -> int:
    rng = np.random.default_rng(20261125)
    found = 0
    for _ in range(RUNS // CHUNK):
        values = observe(rng, CHUNK)
        in_b = rng.random(values.shape) < STEPS
        found += int(looks(values, in_b, STEPS, ALPHA).any(axis=1).sum())
    return found


def by_rate(hit: np.ndarray, in_b: np.ndarray, share: np.ndarray, alpha: float, expected: float = 0.0) -> np.ndarray:
    """(runs, looks): whether 0 is refuted."""
    groups = []
    for value in np.unique(share):
        here = share == value
        cells = (~in_b & ~hit, ~in_b & hit, in_b & ~hit, in_b & hit)
        counts = np.stack([(cell & here).cumsum(axis=1) for cell in cells], -1)
        groups.append(Seen(scores(float(value), expected), counts))
    needed = math.log(2 / alpha)
    return (log_wealth(groups, 0.0) >= needed) | (log_wealth(mirrored(groups), 0.0) >= needed)


def by_mean(values: np.ndarray, in_b: np.ndarray, share: np.ndarray, alpha: float) -> np.ndarray:
    slope, half = running_difference(values, in_b, share, alpha)
    return np.abs(slope) > half


def quantiles_told_apart() -> int:
    rng = np.random.default_rng(20261126)
    found = 0
    for _ in range(RUNS // CHUNK):
        values = np.exp(correlated(0.9)(rng, CHUNK))
        in_b = rng.random(values.shape) < 0.25
        for row, arms in zip(values.tolist(), in_b.tolist(), strict=True):
            found += _quantile_differs(row, arms)
    return found


def _quantile_differs(values: list[float], in_b: list[bool]) -> bool:
    pair = QuantileRatio(90)
    for number, (value, arm) in enumerate(zip(values, in_b, strict=True), 1):
        pair.observe(value, in_b=arm)
        if number % 200 == 0:
            low, high = pair.interval(ALPHA)
            if low > 0 or high < 0:
                return True
    return False


# -- what is planted ---------------------------------------------------------------------------------


def fails_more() -> dict[str, Any]:
    share, num = 0.1, 12_000

    def plant(rng: np.random.Generator, in_b: np.ndarray) -> np.ndarray:
        return in_b & (rng.random(in_b.shape) < 0.01)

    fixed = _proportions(0.0, 0.01, share)
    return _decided("fails 1 % of requests, A none; share 10 %", share, num, plant, by_rate, fixed)


def slower() -> dict[str, Any]:
    share, num = 0.1, 3000

    def plant(rng: np.random.Generator, in_b: np.ndarray) -> np.ndarray:
        return rng.normal(0, 0.4, in_b.shape) + in_b * math.log(1.2)

    z = float(norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER))
    fixed = math.ceil((z * 0.4 / math.log(1.2)) ** 2 / (share * (1 - share)))
    return _decided("20 % slower, spread of logs 0.4; share 10 %", share, num, plant, by_mean, fixed)


def errs_more() -> dict[str, Any]:
    share, num = 0.5, 16_000

    def plant(rng: np.random.Generator, in_b: np.ndarray) -> np.ndarray:
        return rng.random(in_b.shape) < np.where(in_b, 0.13, 0.10)

    def looks(hit: np.ndarray, in_b: np.ndarray, shares: np.ndarray, alpha: float) -> np.ndarray:
        return by_rate(hit, in_b, shares, alpha, expected=0.1)

    return _decided(
        "errs in 13 % of answers, A in 10 %; share 50 %", share, num, plant, looks, _proportions(0.1, 0.13, share)
    )


def _proportions(rate_a: float, rate_b: float, share: float) -> int:
    """Requests of both arms for a z-test of two proportions."""
    z_alpha, z_power = float(norm.ppf(1 - ALPHA / 2)), float(norm.ppf(POWER))
    mean = rate_b * share + rate_a * (1 - share)
    null = math.sqrt(mean * (1 - mean) * (1 / share + 1 / (1 - share)))
    alternative = math.sqrt(rate_b * (1 - rate_b) / share + rate_a * (1 - rate_a) / (1 - share))
    return math.ceil(((z_alpha * null + z_power * alternative) / (rate_b - rate_a)) ** 2)


def _decided(name: str, share: float, num: int, plant: Any, looks: Any, fixed: int) -> dict[str, Any]:
    rng = np.random.default_rng(20261127)
    first: list[int] = []
    missed = 0
    size = 25  # a chunk of long runs must fit in memory
    for _ in range(500 // size):
        in_b = rng.random((size, num)) < share
        found = looks(plant(rng, in_b), in_b, np.full(num, share), ALPHA)
        decided = found.any(axis=1)
        missed += int((~decided).sum())
        first += (found.argmax(axis=1)[decided] + 1).tolist()
    ordered = sorted([*first, *[num + 1] * missed])
    within = ordered[math.ceil(POWER * len(ordered)) - 1]
    return {
        "B": name,
        "median requests": ordered[len(ordered) // 2 - 1],
        f"{POWER:.0%} within": within if within <= num else f"> {num}",
        "fixed sample": fixed,
        "never found": f"{missed} of {len(ordered)} in {num:,}",
    }


if __name__ == "__main__":
    main()
