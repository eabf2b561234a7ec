"""When requests come: the schedule of an open loop.

Gaps are exponential and never rescaled, so the arrivals are a true Poisson process: n requests do not end
at n ÷ rate exactly. The same seed gives the same schedule, whichever process computes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Seconds after the start, ascending without end; `rate` in requests per second."""
    rng = Random(f"{seed}/arrivals")
    at = 0.0
    while True:
        at += rng.expovariate(rate)
        yield at
