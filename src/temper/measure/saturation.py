"""Whether the load generator itself was the bottleneck: how late its loop ran and how much CPU it took.

A generator that cannot keep up makes a server look slow. So each run carries these figures, and a plain
sentence when they are too high. It measures this thread alone; what it listens to, it does not know.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from temper.measure.stats.percentile import nearest_rank

PROBE_S = 0.01
"""How often the loop is asked to wake up on time."""
MAX_CPU_SHARE = 0.8
"""Of one core: the loop runs on one."""
MAX_LAG_MS = 20.0
"""p99 of the loop's lateness; a token that waits so long in our own queue spoils an inter-token latency."""


@dataclass(frozen=True, slots=True)
class Saturation:
    """The generator's own state during a run."""

    cpu_share: float
    """CPU of the generator's thread as a share of one core. An engine in process counts in it."""
    loop_lag_p99_ms: float
    send_late_p99_ms: float | None
    """Open loop: how late requests were sent. That time is inside their latency."""
    reasons: tuple[str, ...]
    """Why the generator was the bottleneck; empty when it was not."""

    @property
    def is_bottleneck(self) -> bool:
        """The run says more about the generator than about the engine."""
        return bool(self.reasons)


class Watch:
    """Watches the loop and the thread while its context is open."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lags: list[float] = []
        self._wall = self._cpu = 0.0

    async def __aenter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), time.thread_time()
        self._probe = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._probe.cancel()
        self._wall, self._cpu = time.perf_counter() - self._wall, time.thread_time() - self._cpu

    async def _look(self) -> None:
        clock = self._clock
        while True:
            due = clock() + PROBE_S
            await asyncio.sleep(PROBE_S)
            self._lags.append(max(0.0, clock() - due))

    def saturation(self, send_late_s: Sequence[float]) -> Saturation:
        """What was seen; `send_late_s`, ascending, is how late each request of an open loop was sent."""
        share = self._cpu / self._wall if self._wall > 0 else 0.0
        lag = 1000 * nearest_rank(sorted(self._lags), 99) if self._lags else 0.0
        return judge(share, lag, 1000 * nearest_rank(send_late_s, 99) if send_late_s else None)


def merged(parts: Sequence[Saturation]) -> Saturation:
    """The figures of several generators: the busiest one counts."""
    late = [part.send_late_p99_ms for part in parts if part.send_late_p99_ms is not None]
    return judge(
        max(part.cpu_share for part in parts), max(part.loop_lag_p99_ms for part in parts), max(late) if late else None
    )


def judge(cpu_share: float, loop_lag_p99_ms: float, send_late_p99_ms: float | None) -> Saturation:
    """The figures with what they mean."""
    reasons = []
    if cpu_share > MAX_CPU_SHARE:
        reasons.append(f"it used {cpu_share:.0%} of a core (limit {MAX_CPU_SHARE:.0%}): use more --processes")
    if loop_lag_p99_ms > MAX_LAG_MS:
        reasons.append(f"its loop woke {loop_lag_p99_ms:.0f} ms late at p99 (limit {MAX_LAG_MS:.0f} ms): free a core")
    if send_late_p99_ms is not None and send_late_p99_ms > MAX_LAG_MS:
        reasons.append(f"it sent {send_late_p99_ms:.0f} ms late at p99 (limit {MAX_LAG_MS:.0f} ms)")
    return Saturation(cpu_share, loop_lag_p99_ms, send_late_p99_ms, tuple(reasons))
