"""The worker's process, from spawn to end, and our end of its socket. What is said over it is `remote.py`'s.

Spawning needs no event loop: a worker begins to load when it is made, and is spoken to when there is time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from typing import Any

from temper.engines.native import wire

_log = logging.getLogger(__name__)
_LAST_WORDS_S = 1.0


class WorkerProcess:
    """A process that runs `worker.py`. The kernel ends it when the thread that made it ends."""

    def __init__(self, opening: tuple[Any, ...]) -> None:
        """Start it; `opening` is the first message that it reads."""
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "temper.engines.native.worker",
                 "--fd", str(theirs.fileno()), "--parent", str(os.getpid())],
                pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        self._socket.sendall(wire.encode(opening))
        self._log = threading.Thread(target=self._forward_log, name="worker-log", daemon=True)
        self._log.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """What it says, and the way to answer, on the running loop."""
        self._socket.setblocking(False)
        return await asyncio.open_connection(sock=self._socket)

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self, grace_s: float) -> int:
        """Hang up, which tells it to go, and kill it after `grace_s`; returns its exit code once its log is read."""
        self._socket.close()
        return await asyncio.shield(asyncio.to_thread(self._reap, grace_s))

    def _reap(self, grace_s: float) -> int:
        try:
            code = self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        self._log.join(_LAST_WORDS_S)  # its last words say why
        return code

    def _forward_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                _log.info("worker %s: %s", self._process.pid, line.decode("utf-8", "replace").rstrip())
