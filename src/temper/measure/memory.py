"""Memory of a server's processes, from `/proc`: by the port it listens on, or by process id.

Where `/proc` does not tell (another system, another machine, another user's process) the answer is None.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

EVERY_S = 0.5
PROC = Path("/proc")
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_LISTEN = "0A"


def server_pids(url: str) -> tuple[int, ...]:
    """Processes of this machine that listen on the port of `url`; none for another machine."""
    parts = urlsplit(url)
    if parts.hostname not in LOOPBACK:
        return ()
    inodes = _listening(parts.port or (443 if parts.scheme == "https" else 80))
    return tuple(pid for pid in _all_pids() if inodes & _sockets(pid)) if inodes else ()


def family(pids: Iterable[int]) -> tuple[int, ...]:
    """These processes and all below them."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        children.setdefault(_parent(pid), []).append(pid)
    found: dict[int, None] = {}
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found[pid] = None
            waiting += children.get(pid, [])
    return tuple(found)


def rss_bytes(pids: Iterable[int]) -> int | None:
    """Resident memory, summed; shared pages count in each process."""
    page = os.sysconf("SC_PAGE_SIZE")
    found = [int(text.split()[1]) * page for pid in pids if (text := _read(PROC / str(pid) / "statm"))]
    return sum(found) if found else None


def pss_bytes(pids: Iterable[int]) -> int | None:
    """Proportional memory, summed: a page that n processes share counts 1/n in each."""
    found = [
        int(line.split()[1]) * 1024
        for pid in pids
        for line in _read(PROC / str(pid) / "smaps_rollup").splitlines()
        if line.startswith("Pss:")
    ]
    return sum(found) if found else None


class MemoryWatch:
    """Looks at processes and their children every half second while its context is open."""

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = tuple(roots)
        self.peak_rss_bytes: int | None = None
        self.pss_bytes: int | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look()) if self._roots else None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            pids = family(self._roots)
            self._note(pids)
            self.pss_bytes = pss_bytes(pids)

    async def _look(self) -> None:
        pids = family(self._roots)  # reading every process's parent is dear: once
        while True:
            self._note(pids)
            await asyncio.sleep(EVERY_S)

    def _note(self, pids: Iterable[int]) -> None:
        now = rss_bytes(pids)
        if now is not None:
            self.peak_rss_bytes = max(now, self.peak_rss_bytes or 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _all_pids() -> list[int]:
    try:
        return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return []


def _parent(pid: int) -> int:
    # The command's name stands in parentheses and may hold anything: read behind the last one.
    rest = _read(PROC / str(pid) / "stat").rpartition(")")[2].split()
    return int(rest[1]) if len(rest) > 1 else 0


def _listening(port: int) -> set[str]:
    """Inodes of the sockets that listen on a port."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in _read(PROC / "net" / name).splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                found.add(words[9])
    return found


def _sockets(pid: int) -> set[str]:
    found = set()
    try:
        for entry in (PROC / str(pid) / "fd").iterdir():
            target = os.readlink(entry)
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found
