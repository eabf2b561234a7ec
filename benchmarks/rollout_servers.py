"""Real servers under rollouts: launched, killed and started again, with callers who never stop asking."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
from launched import children, free_port

from temper.fleet.store import Store, url_of

TEMPER = [sys.executable, "-m", "temper.cli"]


class Fleet:
    """One server and one controller over a store of their own."""

    def __init__(self, home: Path, profile: Path) -> None:
        self.home, self.profile, self.port = home, profile, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = Store(url_of(home))
        self.log = (home / "servers.log").open("ab")
        self.server = self.controller = None

    def start_server(self) -> None:
        """Ready, and known to the store, when it returns."""
        command = [*TEMPER, "serve", str(self.profile), "--port", str(self.port), "--home", str(self.home)]
        self.server = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        began = time.time()
        wait(lambda: any(s.alive and s.started_at >= began - 1 for s in self.store.deployments.servers()), 120)

    def start_controller(self) -> None:
        command = [*TEMPER, "loop", "run", "--home", str(self.home)]
        self.controller = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def engines(self) -> list[int]:
        """Processes that the server launched."""
        return children(self.server.pid)

    def stop(self) -> None:
        for process in (self.controller, self.server):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in (self.controller, self.server):
            if process is not None:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.store.close()
        self.log.close()


class Callers:
    """Keep asking until they are told to stop; counts of how it went, and when it last went well."""

    def __init__(self, url: str, num: int, max_tokens: int = 8) -> None:
        self.counts: Counter[str] = Counter()
        self.last_ok = 0.0
        self._url, self._num, self._max_tokens, self._ended = url, num, max_tokens, False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended = True
        self._thread.join(60)

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            await asyncio.gather(*(self._one(client, number) for number in range(self._num)))

    async def _one(self, client: httpx.AsyncClient, number: int) -> None:
        at = 0
        while not self._ended:
            at += 1
            body = {"model": "default", "prompt": f"{number} {at} a b c d", "max_tokens": self._max_tokens}
            try:
                answer = await client.post(f"{self._url}/v1/completions", json=body)
            except httpx.TransportError:
                self.counts["no server"] += 1
                await asyncio.sleep(0.05)
                continue
            self.counts["ok" if answer.status_code == 200 else str(answer.status_code)] += 1
            if answer.status_code == 200:
                self.last_ok = time.time()


def kill(pid: int) -> None:
    """Without a chance to say goodbye."""
    os.kill(pid, signal.SIGKILL)


def wait(condition, timeout_s: float) -> float:
    """Poll until `condition()`; the seconds it took."""
    start = time.time()
    while not condition():
        if time.time() - start > timeout_s:
            raise TimeoutError(f"waited {timeout_s} s in vain")
        time.sleep(0.05)
    return time.time() - start
