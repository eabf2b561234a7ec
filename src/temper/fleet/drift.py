"""Whether things are still as they were: the workload, the latency, the quality, the promise.

A drift is a reason to look for a better profile, no verdict: requests of one hour are not independent, so besides
being improbable by chance a difference must be large enough to matter. The verdict is the canary's.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from temper.fleet.monitor import Seen
from temper.measure.stats.proportion import at_most, lower_bound, upper_bound
from temper.profile.schema import Slo

FEWEST = 100
"""Requests in a window that says anything."""
ALPHA = 0.001
"""Of each test; Kolmogorov–Smirnov on lengths and latencies."""
DISTANCE = 0.25
"""Least distance of two distributions of lengths that matters: so much of the traffic is elsewhere."""
SLOWER = 1.2
"""Least ratio of median latencies that matters."""
LEAST_MS = 10.0
"""Least difference of median latencies that anybody could mind."""
BUSIER = 1.5
"""Least ratio of arrival rates that matters, either way."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is not as it was."""

    kind: Literal["workload", "latency", "quality", "slo"]
    text: str
    """For people, a clause."""


def drifts(before: Seen, now: Seen, slo: Slo) -> list[Drift]:
    """What differs now; nothing while either window is too small to say."""
    if now.num_requests < FEWEST:
        return []
    found = list(_promise(now, slo))
    if before.num_requests >= FEWEST:
        found += [*_workload(before, now), *_latency(before, now), *_quality(before, now)]
    return found


def _promise(now: Seen, slo: Slo) -> Iterator[Drift]:
    for name, limit_ms, values in (
        ("first token", slo.ttft_p99_ms, now.ttft_ms),
        ("answer", slo.e2e_p99_ms, now.e2e_ms),
    ):
        if limit_ms is None or not values:
            continue
        late = sum(value > limit_ms for value in values)
        if at_most(late, len(values), 0.01).verdict == "fail":
            yield Drift("slo", f"{late / len(values):.1%} of requests wait longer for the {name} than {limit_ms:g} ms")


def _workload(before: Seen, now: Seen) -> Iterator[Drift]:
    for name, a, b in (
        ("prompts", before.prompt_tokens, now.prompt_tokens),
        ("answers", before.output_tokens, now.output_tokens),
    ):
        if _apart(a, b):
            yield Drift("workload", f"{name} went from {_middle(a):.0f} tokens to {_middle(b):.0f} in the middle")
    if before.per_second > 0 and now.per_second > 0:
        ratio = now.per_second / before.per_second
        if ratio >= BUSIER or ratio <= 1 / BUSIER:
            yield Drift("workload", f"arrivals went from {before.per_second:.3g} to {now.per_second:.3g} a second")


def _latency(before: Seen, now: Seen) -> Iterator[Drift]:
    for name, a, b in (("the first token", before.ttft_ms, now.ttft_ms), ("answers", before.e2e_ms, now.e2e_ms)):
        if not a or not b or _middle(b) < max(SLOWER * _middle(a), _middle(a) + LEAST_MS):
            continue
        if _apart(a, b, distance=0.0):
            yield Drift("latency", f"{name} went from {_middle(a):.0f} ms to {_middle(b):.0f} ms in the middle")


def _quality(before: Seen, now: Seen) -> Iterator[Drift]:
    for name, hits, total, old_hits, old_total in (
        ("failed requests", now.num_failed, now.num_requests, before.num_failed, before.num_requests),
        ("wrong answers", now.num_wrong, now.num_judged, before.num_wrong, before.num_judged),
    ):
        if total and old_total and lower_bound(hits, total, 0.99) > upper_bound(old_hits, old_total, 0.99):
            yield Drift("quality", f"{name} went from {old_hits / old_total:.1%} to {hits / total:.1%}")


def _apart(a: Sequence[float], b: Sequence[float], distance: float = DISTANCE) -> bool:
    if min(len(a), len(b)) < FEWEST // 2:
        return False
    from scipy.stats import ks_2samp

    found = ks_2samp(a, b)
    return bool(found.pvalue < ALPHA and found.statistic >= distance)


def _middle(values: Sequence[float]) -> float:
    return statistics.median(values)
