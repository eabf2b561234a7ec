"""The real thing: `temper serve` as a user starts it, on the real default model, spoken to over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

CORPUS = Path(__file__).parent.parent / "data" / "corpus"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def child_pids(pid: int) -> list[int]:
    """Direct children of a process, from /proc."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(p) for p in (task / "children").read_text().split()]
    return found


@dataclass
class Server:
    """A running `temper serve`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def worker_pid(self) -> int:
        """The process that computes: the one child that runs the native worker."""
        workers = [
            pid for pid in child_pids(self.process.pid) if b"native.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        assert len(workers) == 1, f"expected one worker under {self.process.pid}, found {workers}"
        return workers[0]

    def pss_bytes(self) -> int:
        """Proportional memory of the server and all below it."""
        pids, total = [self.process.pid], 0
        while pids:
            pid = pids.pop()
            pids += child_pids(pid)
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
        return total

    def metric(self, name: str) -> float:
        """Sum of a Prometheus metric over its labels."""
        text = httpx.get(f"{self.url}/metrics").text
        rows = [line for line in text.splitlines() if line.startswith((name + "{", name + " "))]
        assert rows, f"metric {name} is not exported"
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows)


@contextmanager
def serving(tmp: Path, *args: str, timeout_s: float = 60.0) -> Iterator[Server]:
    """Start `temper serve`, wait until it is ready, and end it with SIGTERM."""
    port = free_port()
    log = tmp / f"serve-{port}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "temper.cli", "serve", "--port", str(port), *args],
            stdout=sink,
            stderr=sink,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        wait_ready(server, timeout_s)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_ready(server: Server, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        assert server.process.poll() is None, f"temper serve ended early:\n{server.log.read_text()[-3000:]}"
        try:
            if httpx.get(f"{server.url}/ready", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    pytest.fail(f"not ready after {timeout_s} s:\n{server.log.read_text()[-3000:]}")


def wait_until(condition, timeout_s: float, what: str) -> float:
    """Poll until `condition()`; returns the seconds it took."""
    start = time.monotonic()
    while time.monotonic() - start < timeout_s:
        if condition():
            return time.monotonic() - start
        time.sleep(0.01)
    pytest.fail(f"{what}: not within {timeout_s} s")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The default profile, shared by tests that leave it as they found it."""
    with serving(tmp_path_factory.mktemp("serve")) as running:
        yield running
