"""Whether two expressions are equal, decided by computer algebra in a process of its own.

What a model wrote is never evaluated as Python, and may still keep an algebra system busy for ever: so the work is
done elsewhere, with limits on its memory and its time, and a worker that overruns is killed and replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

from temper.errors import EngineFailure, MissingExtra

WORKER = Path(__file__).with_name("verify_worker.py")
TIMEOUT_S = 5.0
START_S = 60.0
"""For the start of a worker, which imports the algebra system."""
MAX_LENGTH = 500
"""Longest expression that is looked at, in characters."""


class Verifier:
    """Answers `equal` from any thread, one question at a time. Its worker starts with the first question.

    Raises:
        MissingExtra: sympy is not installed.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        if find_spec("sympy") is None:
            raise MissingExtra("verified maths needs sympy", hint="pip install 'temper-llm[evals]'")
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None
        self.num_undecided = 0
        """Questions that were not decided in time."""

    @property
    def about(self) -> str:
        """How answers are verified, in words."""
        return f"sympy in a worker process, {self._timeout_s:g} s an answer"

    def equal(self, given: str, right: str) -> bool:
        """Whether `given` is proven equal to `right`; False as well where it is no expression or time ran out."""
        if not given or len(given) > MAX_LENGTH:
            return False
        with self._lock:
            worker = self._worker if self._worker is not None and self._worker.poll() is None else self._start()
            found = self._asked(worker, {"given": given, "right": right}, self._timeout_s)
            if found is None:
                self.num_undecided += 1
            return found is True

    def close(self) -> None:
        """End the worker."""
        with self._lock:
            self._end()

    def __del__(self) -> None:
        self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        self._worker = subprocess.Popen(
            [sys.executable, "-I", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LANG": "C.UTF-8"},
            cwd="/",
        )
        if self._asked(self._worker, {"given": "1", "right": "1"}, START_S) is not True:
            raise EngineFailure("the process that verifies maths does not start", hint="does `import sympy` work?")
        return self._worker

    def _asked(self, worker: subprocess.Popen[bytes], question: dict[str, str], timeout_s: float) -> bool | None:
        """The worker's answer; None when it has none, or none in time."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write(json.dumps(question).encode() + b"\n")
            worker.stdin.flush()
            line = _read_line(worker.stdout.fileno(), timeout_s)
        except BrokenPipeError:
            line = None
        if line is None:
            self._end()
            return None
        found: bool | None = json.loads(line)
        return found

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            with contextlib.suppress(OSError):
                worker.communicate()


def _read_line(descriptor: int, timeout_s: float) -> bytes | None:
    """One line, or None when it does not come in time."""
    end, line = time.monotonic() + timeout_s, b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(descriptor, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not waiting.select(max(0.0, end - time.monotonic())):
                return None
            piece = os.read(descriptor, 4096)
            if not piece:
                return None
            line += piece
    return line
