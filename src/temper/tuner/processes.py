"""CPU time of processes, from `/proc`. None where it does not tell."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from temper.measure.memory import PROC, family


def cpu_seconds(roots: Iterable[int], proc: Path = PROC) -> float | None:
    """User and system time of these processes and all below them, so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = []
    for pid in family(roots):
        try:
            # The command's name stands in parentheses and may hold anything: read behind the last one.
            words = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found.append((int(words[11]) + int(words[12])) / ticks)
    return sum(found) if found else None
