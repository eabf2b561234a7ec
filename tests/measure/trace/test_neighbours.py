from __future__ import annotations

import os
from pathlib import Path

from temper.measure.trace.neighbours import Neighbours


def write(root: Path, busy: int, ours: int) -> None:
    """Ticks that the machine, and that this process used."""
    (root / f"proc/{os.getpid()}").mkdir(parents=True, exist_ok=True)
    (root / "proc/stat").write_text(f"cpu  {busy} 0 0 12345 678 0 0 0 0 0\ncpu0 1 1 1 1\n")
    (root / f"proc/{os.getpid()}/stat").write_text(f"1 (a (odd) name) S {' '.join(['0'] * 10)} {ours} 0 9 9\n")


def test_what_is_not_ours_is_the_others(tmp_path):
    ticks = os.sysconf("SC_CLK_TCK")
    write(tmp_path, busy=1000, ours=100)
    watched = Neighbours((), tmp_path)
    write(tmp_path, busy=1000 + 20 * ticks, ours=100 + 5 * ticks)
    assert watched.cores(10.0) == 1.5


def test_without_proc_nothing_is_told(tmp_path):
    assert Neighbours((), tmp_path).cores(1.0) is None


def test_on_this_machine():
    found = Neighbours(()).cores(1.0)
    assert found is None or found >= 0
