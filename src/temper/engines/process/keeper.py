"""The process between Temper and a server: it starts the server, and leaves nothing behind.

    python keeper.py PARENT_PID GRACE_S COMMAND…

Run as a file, on the standard library alone: it starts in milliseconds and stays small. It leads a process group in
which the server and its children live. When Temper dies, even by SIGKILL, or says SIGTERM, the server gets SIGTERM,
and after the grace the whole group is killed. When the server ends, its orphans are killed, and the keeper ends with
its code (128 + number for a signal). It knows nothing of what the server is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
NOT_FOUND, NOT_STARTED = 127, 126


def main(arguments: Sequence[str]) -> int:
    """Run a command until it ends or we are told to end it; returns its exit code."""
    parent, grace_s, command = int(arguments[0]), float(arguments[1]), list(arguments[2:])
    child: subprocess.Popen[bytes] | None = None
    ending = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = True
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, max(grace_s, 0.001))

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGALRM, lambda number, frame: _sweep())
    _die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        return 1
    try:
        # Safe here: this process has one thread.
        child = subprocess.Popen(command, preexec_fn=_in_child)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_STARTED
    if ending:
        end(signal.SIGTERM, None)
    code = child.wait()
    _sweep()
    return code if code >= 0 else 128 - code


def _in_child() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _die_with_parent(signal.SIGKILL)


def _die_with_parent(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _sweep() -> None:
    """Kill everything in our group but ourselves."""
    own, group = os.getpid(), os.getpgrp()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            # Behind the command's name, which may hold anything: state, parent, group.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and int(entry.name) != own:
                os.kill(int(entry.name), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
