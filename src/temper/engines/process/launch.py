"""One life of a server's process: spawned, logged, weighed, ended. What it serves is the engine's business."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from temper.engines.process.journal import Journal
from temper.errors import EngineDied

KEEPER = Path(__file__).with_name("keeper.py")
PIECE_BYTES = 1 << 16
LAST_WORDS_S = 2.0
"""How long the rest of the output is waited for when a process has ended."""

PASSED = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM", "SHELL",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
    "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "SYSTEMROOT",
})  # fmt: skip
"""Variables that every server gets from Temper's environment."""
PASSED_BEGINNINGS = ("LC_", "XDG_", "CUDA_", "NVIDIA_", "OMP_", "KMP_", "GOMP_", "MKL_")


def allowed(environ: Mapping[str, str], further: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """A server's environment: what all may see of `environ`, what the profile asks to hand on, what it sets."""
    names = PASSED | set(further)
    passed = {name: value for name, value in environ.items() if name in names or name.startswith(PASSED_BEGINNINGS)}
    return {**passed, **given}


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Launched:
    """A server's processes, from launch to end."""

    def __init__(self, process: asyncio.subprocess.Process, journal: Journal, on_line: Callable[[str], None]) -> None:
        self._process = process
        self._journal = journal
        self._on_line = on_line
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        """Of the keeper, which leads the process group."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code (128 + number for a signal), None while it lives."""
        code = self._process.returncode
        return code if code is None or code >= 0 else 128 - code

    async def wait(self) -> int:
        """Until it has ended and its last words are read; returns its exit code."""
        await self._process.wait()
        await asyncio.wait({self._reading}, timeout=LAST_WORDS_S)
        assert self.code is not None
        return self.code

    async def end(self, grace_s: float) -> int:
        """SIGTERM, and after `grace_s` SIGKILL for the whole group; returns the exit code."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(asyncio.shield(self._process.wait()), grace_s + 1.0)
            except TimeoutError:
                self.kill()
        code = await self.wait()
        self._reading.cancel()
        return code

    def kill(self) -> None:
        """End the whole group at once."""
        if self.code is None:  # a group of that number is ours as long as its leader is not reaped
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while data := await stream.read(PIECE_BYTES):
            for line in self._journal.write(data):
                self._on_line(line)


async def launch(
    words: Sequence[str],
    environment: Mapping[str, str],
    journal: Journal,
    grace_s: float,
    on_line: Callable[[str], None],
) -> Launched:
    """Start a command in a process group of its own, its output going to `journal`.

    Raises:
        EngineDied: there is no such program.
    """
    program = shutil.which(words[0], path=environment.get("PATH", os.defpath))
    if program is None:
        raise EngineDied(
            f"there is no program '{words[0]}' to start", hint="install it, or write its whole path into the command"
        )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(KEEPER), str(os.getpid()), str(grace_s), program, *words[1:],
        env=dict(environment), start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    return Launched(process, journal, on_line)


def group_members(leader: int) -> list[int]:
    """Processes in the group that `leader` leads, itself included; empty where `/proc` does not tell."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[2]) == leader:
                found.append(int(entry.name))
    return found


def pss_bytes(pids: Sequence[int]) -> int:
    """Memory of these processes; a page that n processes share counts 1/n in each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total
