"""Servers that a proof starts: ready when handed over, ended by their own pid, measured from /proc."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children(pid: int) -> list[int]:
    """Processes that `pid` started and that live."""
    return [int(c) for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]


def pss_bytes(pid: int) -> int:
    """Proportional memory of a process and of all below it."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    own = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
    return own + sum(pss_bytes(child) for child in children(pid))


@dataclass
class Launched:
    """A running server."""

    pid: int
    url: str

    def metric(self, name: str) -> float:
        """Sum of a Prometheus metric over its labels."""
        rows = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows if row.startswith((name + "{", name + " ")))

    def worker_pid(self) -> int:
        """The process of `temper serve` that computes."""
        named = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children(self.pid)}
        return next(pid for pid, line in named.items() if b"native.worker" in line)

    def is_ready(self) -> bool:
        """Whether it answers and could compute."""
        try:
            return httpx.get(f"{self.url}/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def launched(command: list[str], port: int, *, path: str = "/health", timeout_s: float = 60.0) -> Iterator[Launched]:
    """Run `command` until the block ends; handed over once `path` answers 200."""
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        server = Launched(process.pid, f"http://127.0.0.1:{port}")
        try:
            wait(lambda: _answers(server.url + path) or process.poll() is not None, timeout_s)
            if process.poll() is not None:
                sys.exit(f"{command[0]} ended early:\n{Path(log.name).read_text()[-2000:]}")
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def temper_serve(*args: str) -> tuple[list[str], int]:
    """The command of `temper serve` on a free port, and the port."""
    port = free_port()
    return [sys.executable, "-m", "temper.cli", "serve", *args, "--port", str(port)], port


def wait(condition, timeout_s: float) -> float:
    """Poll until `condition()`; the seconds it took. Ends the program when the time is up."""
    start = time.perf_counter()
    while not condition():
        if time.perf_counter() - start > timeout_s:
            sys.exit(f"waited {timeout_s} s in vain")
        time.sleep(0.01)
    return time.perf_counter() - start


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
