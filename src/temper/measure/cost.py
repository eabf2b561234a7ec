"""What an answer costs: CPU seconds and joules as they are measured, money from a price per hour.

CPU seconds are those of the server's processes, from `/proc`; joules come from RAPL where the machine lets us read it,
and are null with the reason elsewhere. Money is arithmetic: the hours that the work took × the price of the machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from temper.measure.memory import PROC, family

RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a stretch of work took."""

    wall_s: float
    cpu_s: float | None
    """Of the watched processes and their children; None where they are on another machine."""
    joules: float | None
    """Of the whole processor package, other work included."""
    joules_reason: str | None = None
    """Why joules are not known."""


class Meter:
    """Measures what processes spend while its context is open: `with Meter(pids) as meter: …; meter.spent`."""

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = tuple(roots)
        self.spent = Spent(0.0, None, None, "not measured")

    def __enter__(self) -> Self:
        self._begin = time.monotonic()
        self._cpu = cpu_seconds(self._roots)
        self._energy = energy()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cpu = cpu_seconds(self._roots)
        after = energy()
        joules, reason = _joules(self._energy, after) if self._roots else (None, "the server is on another machine")
        self.spent = Spent(
            wall_s=time.monotonic() - self._begin,
            cpu_s=None if cpu is None or self._cpu is None else max(0.0, cpu - self._cpu),
            joules=joules,
            joules_reason=reason,
        )


def cpu_seconds(roots: Iterable[int]) -> float | None:
    """User and system time of these processes and of all below them, ended children included; None without any."""
    ticks = os.sysconf("SC_CLK_TCK")
    found: float | None = None
    for pid in family(roots):
        try:
            words = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found = (found or 0.0) + sum(int(word) for word in words[11:15]) / ticks
    return found


def energy() -> dict[str, tuple[int, int]] | str:
    """By RAPL package: (microjoules so far, where the counter starts again). A text says why there are none."""
    found = {}
    packages = sorted(RAPL.glob("intel-rapl:[0-9]*")) if RAPL.is_dir() else []
    for package in packages:
        if package.name.count(":") > 1:
            continue  # a part of a package, which the package has counted already
        try:
            found[package.name] = (
                int((package / "energy_uj").read_text()),
                int((package / "max_energy_range_uj").read_text()),
            )
        except OSError as error:
            return f"RAPL cannot be read: {error.strerror}"
    return found or "this machine shows no RAPL counters (virtual machines rarely do)"


def _joules(
    before: dict[str, tuple[int, int]] | str, after: dict[str, tuple[int, int]] | str
) -> tuple[float | None, str | None]:
    if isinstance(before, str) or isinstance(after, str):
        return None, before if isinstance(before, str) else str(after)
    used = [(after[name][0] - count) % limit for name, (count, limit) in before.items() if name in after]
    return sum(used) / 1e6, None


def cost(
    spent: Spent, *, tokens: int, answers: int, correct: float | None, price_per_hour: float | None
) -> dict[str, Any]:
    """What a million tokens, an answer and a right answer cost; None where something that it needs is not known.

    `tokens` are those generated. Money counts the whole time of the run, in which the machine did nothing else for us.
    """

    def each(amount: float | None, count: float | None) -> float | None:
        return None if amount is None or not count else amount / count

    money = None if price_per_hour is None else spent.wall_s / 3600 * price_per_hour
    millions = tokens / 1e6
    return {
        "wall_s": spent.wall_s,
        "cpu_s": spent.cpu_s,
        "joules": spent.joules,
        "joules_reason": spent.joules_reason,
        "price_per_hour": price_per_hour,
        "money": money,
        "money_per_million_tokens": each(money, millions),
        "money_per_answer": each(money, answers),
        "money_per_correct_answer": each(money, correct),
        "cpu_s_per_million_tokens": each(spent.cpu_s, millions),
        "cpu_s_per_correct_answer": each(spent.cpu_s, correct),
        "wall_s_per_correct_answer": each(spent.wall_s, correct),
        "joules_per_token": each(spent.joules, tokens),
    }
