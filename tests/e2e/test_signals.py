"""A server that is told to end while its engine still starts: it goes, and takes with it what it started."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL_SERVER = Path(__file__).parents[1] / "engines" / "process" / "small_server.py"
PROFILE = """
[engine]
kind = "process"
command = [{python!r}, {server!r}, "{{port}}", "never", "stubborn", "child"]
stop_grace_s = 60.0
"""


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def below(pid: int) -> set[int]:
    """Every process that `pid` has started, and those below them."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | below(child)
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_while_its_engine_never_gets_ready(tmp_path: Path, number: signal.Signals):
    profile = tmp_path / "never.toml"
    profile.write_text(PROFILE.format(python=sys.executable, server=str(SMALL_SERVER)))
    process = subprocess.Popen(
        [sys.executable, "-m", "temper.cli", "serve", str(profile), "--port", "0", "--home", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        until(lambda: len(below(process.pid)) >= 3 or process.poll() is not None)  # keeper, server, the server's child
        started = below(process.pid)
        process.send_signal(number)
        assert process.wait(20) == 0, process.stdout.read()
        until(lambda: not any(map(lives, started)))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
