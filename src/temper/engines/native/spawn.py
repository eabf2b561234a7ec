"""The worker's process, from spawn to end, and our end of its socket. What is said over it is `remote.py`'s.

Spawning needs no event loop: a worker begins to load when it is told what to open, and is spoken to when there is
time. It may even be spawned before anybody knows what it shall open: a spare imports while its parent does.
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

_log = logging.getLogger(__name__)
_LAST_WORDS_S = 1.0


class WorkerProcess:
    """A process that runs `worker.py`. The kernel ends it when the thread that made it ends."""

    def __init__(self, opener: str) -> None:
        """Start it. It imports what `opener` ("module:callable") lies in, and waits to be told what to open."""
        self.opener = opener
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "temper.engines.native.worker",
                 "--fd", str(theirs.fileno()), "--parent", str(os.getpid()), "--opener", opener],
                pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        self._log = threading.Thread(target=self._forward_log, name="worker-log", daemon=True)
        self._log.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def open(self, opening: tuple[Any, ...]) -> None:
        """Tell it what to open: the first message that it reads."""
        from temper.engines.native import wire  # a spare is spawned before there is time for it

        self._socket.sendall(wire.encode(opening))

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


_spare: WorkerProcess | None = None


def prepare_spare(opener: str) -> None:
    """Spawn a worker that nobody needs yet, if there is none: whoever needs the next one has it at once."""
    global _spare
    if _spare is None:
        _spare = WorkerProcess(opener)


def worker(opener: str) -> WorkerProcess:
    """The spare where it lives and has imported the same, else a new one."""
    global _spare
    if _spare is None or _spare.opener != opener or not _spare.is_alive:
        return WorkerProcess(opener)
    found, _spare = _spare, None
    return found


def end_spare() -> None:
    """End the one that nobody took."""
    global _spare
    if _spare is not None:
        _spare.kill()
        _spare = None
