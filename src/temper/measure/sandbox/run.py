"""The sandbox: a program in, an outcome out.

    outcome = Sandbox().run("print(1 + 1)")
    outcome.status, outcome.stdout, outcome.isolation

Each program gets a fresh `python -I`, an empty environment and a private folder, gives up what `confine` takes, and is
killed with all it started when it overruns. It has passed when it came to its own end: exit code 0 and the nonce.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from temper.errors import Invalid, Unsupported
from temper.measure.sandbox import policy
from temper.measure.sandbox.outcome import Outcome, Status
from temper.measure.sandbox.policy import Isolation, Limits
from temper.measure.sandbox.probe import probe

CONFINE = Path(__file__).with_name("confine.py")
_LOOK_S = 0.1
"""How often the private folder's size is looked at."""
_TICK_S = 0.05
"""The kernel counts a limit in ticks; what it reports is finer."""
_MEMORY_ERRORS = ("MemoryError", "Cannot allocate memory", "can't start new thread")


class Sandbox:
    """Runs programs one at a time or from many threads. The first run probes what holds on this machine."""

    def __init__(self, limits: Limits | None = None, *, allow_weaker: bool = False, packages: bool = False) -> None:
        """`allow_weaker`: run even where Landlock or seccomp is missing. `packages`: installed ones may be imported.

        Raises:
            Unsupported: this system cannot confine a process at all.
        """
        if not sys.platform.startswith("linux"):
            raise Unsupported("the sandbox needs Linux, with Landlock and seccomp", param="sandbox")
        self.limits = limits or Limits()
        self._packages = packages
        self._required = policy.NEVER_WITHOUT if allow_weaker else policy.LAYERS
        self._isolation: Isolation | None = None

    @property
    def isolation(self) -> Isolation:
        """What is reached here, tried from the inside once.

        Raises:
            Unsupported: less than is required.
        """
        if self._isolation is None:
            self._isolation = probe(self._run, weaker=self._required == policy.NEVER_WITHOUT)
        return self._isolation

    def run(
        self,
        program: str,
        *,
        arguments: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
        writable: bool = False,
    ) -> Outcome:
        """Run Python source. `files` lie beside it, by name; `writable`: it may write into its folder.

        Raises:
            Invalid: a file's name is no plain name.
            Unsupported: the isolation that is required cannot be reached here.
        """
        isolation = self.isolation
        return self._run(program, arguments=arguments, files=files, writable=writable, isolation=isolation)

    def _run(
        self,
        program: str,
        *,
        arguments: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
        writable: bool = False,
        isolation: Isolation | None = None,
    ) -> Outcome:
        with _private_folder() as folder:
            packages = policy.package_paths() if self._packages else []
            uid = policy.own_uid(Path(os.__file__), folder.parent, *map(Path, packages))
            _fill(folder, {**(files or {}), "program.py": program}, uid)
            wanted = {
                "limits": policy.resource_limits(self.limits, uid),
                "uid": uid,
                "readable": [*policy.library_paths(), *packages, str(folder)],
                "writable": [str(folder)] if writable else [],
                "devices": policy.device_paths(),
                "seccomp": policy.filter_bytes().hex(),
                "required": self._required,
                "path": [str(folder), *packages],
                "program": str(folder / "program.py"),
                "arguments": list(arguments),
            }
            return _watched(wanted, folder, self.limits, isolation)


def _watched(wanted: dict[str, Any], folder: Path, limits: Limits, isolation: Isolation | None) -> Outcome:
    """Start the process, watch it to its end, and judge."""
    nonce = secrets.token_hex(16).encode()
    reading, writing = os.pipe()
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(CONFINE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"LANG": "C.UTF-8", "HOME": str(folder), "TMPDIR": str(folder), "OPENBLAS_NUM_THREADS": "1"},
        cwd=folder,
        pass_fds=(writing,),
        start_new_session=True,
    )
    os.close(writing)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    streams = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray(), reading: bytearray()}
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps({**wanted, "result": writing}).encode() + b"\n" + nonce + b"\n")
            process.stdin.close()
        stopped = _read_all(streams, limits, folder, begin + limits.wall_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, state, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(state)
        result = bytes(streams[reading])
        os.close(reading)
        process.stdout.close()
        process.stderr.close()
    wall_s = time.monotonic() - begin
    stdout, stderr = (bytes(text).decode("utf-8", "replace") for text in list(streams.values())[:2])
    first, _, rest = result.partition(b"\n")
    reached = _reached(first, stderr, own_user=wanted["uid"] is not None)
    finished = secrets.compare_digest(rest, nonce + b"\n")
    cpu_s = usage.ru_utime + usage.ru_stime
    out_of_cpu = cpu_s >= wanted["limits"]["CPU"] - _TICK_S
    return Outcome(
        status=stopped or _status(process.returncode, stderr, finished=finished, out_of_cpu=out_of_cpu),
        exit_code=process.returncode,
        stdout=stdout,
        stderr=stderr,
        wall_s=wall_s,
        cpu_s=cpu_s,
        max_rss_bytes=usage.ru_maxrss * 1024,
        isolation=isolation or reached,
    )


def _read_all(
    streams: dict[int, bytearray], limits: Limits, folder: Path, end: float
) -> Literal["timeout", "output", "disk"] | None:
    """Read until every stream has ended; says which limit was reached first, if one was."""
    with selectors.DefaultSelector() as waiting:
        for descriptor in streams:
            waiting.register(descriptor, selectors.EVENT_READ)
        while waiting.get_map():
            left = end - time.monotonic()
            if left <= 0:
                return "timeout"
            for key, _ in waiting.select(min(left, _LOOK_S)):
                piece = os.read(key.fd, 65536)
                streams[key.fd] += piece
                if not piece:
                    waiting.unregister(key.fd)
            if sum(map(len, streams.values())) > limits.output_bytes:
                return "output"
            if _size(folder) > limits.file_bytes:
                return "disk"
    return None


def _status(exit_code: int, stderr: str, *, finished: bool, out_of_cpu: bool) -> Status:
    if exit_code == 0:
        return "passed" if finished else "unfinished"
    # The kernel kills at the hard limit, which is the soft one here, without SIGXCPU.
    if exit_code == -signal.SIGXCPU or (exit_code == -signal.SIGKILL and out_of_cpu):
        return "timeout"
    if exit_code == -signal.SIGXFSZ:
        return "disk"
    last = stderr.strip().rpartition("\n")[2]
    return "memory" if any(word in last for word in _MEMORY_ERRORS) else "failed"


def _reached(said: bytes, stderr: str, *, own_user: bool) -> Isolation:
    """The isolation that `confine` says it put on, before the program had a word.

    Raises:
        Unsupported: it put on less than was required, and did not start the program.
    """
    try:
        found = json.loads(said)
    except ValueError:
        found = {"refused": f"the process did not start: {stderr.strip()[-300:] or 'it said nothing'}"}
    if "refused" in found:
        raise Unsupported(
            f"the sandbox needs {', '.join(policy.LAYERS)}, but cannot have all of them here: {found['refused']}",
            param="sandbox",
            hint="--allow-weaker-isolation runs programs with the layers that there are",
        )
    return Isolation(full=not found["missing"], missing=found["missing"], own_user=own_user)


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="temper-sandbox-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, onerror=_open_and_remove)


def _open_and_remove(remove: Callable[[str], object], path: str, _: object) -> None:
    """A program may have closed its own folders to us."""
    with contextlib.suppress(OSError):
        os.chmod(os.path.dirname(path), 0o700)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, 0o700)
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def _fill(folder: Path, files: Mapping[str, str], uid: int | None) -> None:
    for name, text in files.items():
        if Path(name).name != name or name in ("", ".", ".."):
            raise Invalid(f"a file of the sandbox has a plain name, but is called {name!r}", param="files")
        (folder / name).write_text(text, "utf-8")
        if uid is not None:
            os.chown(folder / name, uid, uid)
    if uid is not None:
        os.chown(folder, uid, uid)


def _size(folder: Path) -> int:
    """Bytes of all files below, as far as they can be seen."""
    found = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found += os.lstat(os.path.join(root, name)).st_size
    return found
