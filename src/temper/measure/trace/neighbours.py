"""How much of the machine other programs used while we measured: what they take is in every time of ours.

Reads `/proc`; where there is none, nothing is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from temper.measure.memory import family

_BUSY = (0, 1, 2, 5, 6, 7)
"""Columns of `/proc/stat`: user, nice, system, irq, softirq, steal."""


class Neighbours:
    """Counts from when it is made."""

    def __init__(self, pids: Iterable[int], root: Path = Path("/")) -> None:
        """`pids` are the roots of what is ours, this process aside."""
        self._roots = (os.getpid(), *pids)
        self._root = root
        self._busy_s, self._ours_s = self._now()

    def cores(self, wall_s: float) -> float | None:
        """Cores that others kept busy on average over the last `wall_s` seconds; None where it cannot be told."""
        busy_s, ours_s = self._now()
        if busy_s is None or self._busy_s is None or wall_s <= 0:
            return None
        return round(max(0.0, (busy_s - self._busy_s) - (ours_s - self._ours_s)) / wall_s, 2)

    def _now(self) -> tuple[float | None, float]:
        """CPU seconds that the whole machine, and that our processes have used so far."""
        ticks_per_s = os.sysconf("SC_CLK_TCK")
        try:
            columns = (self._root / "proc/stat").read_text().split("\n", 1)[0].split()[1:]
        except OSError:
            return None, 0.0
        return sum(int(columns[i]) for i in _BUSY) / ticks_per_s, self._ours(ticks_per_s)

    def _ours(self, ticks_per_s: int) -> float:
        ticks = 0
        for pid in set(family(self._roots)):
            try:
                stat = (self._root / f"proc/{pid}/stat").read_text()
            except OSError:
                continue  # it has just ended
            after_name = stat.rpartition(")")[2].split()
            ticks += int(after_name[11]) + int(after_name[12])  # utime, stime
        return ticks / ticks_per_s
