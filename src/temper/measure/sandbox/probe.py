"""Tries from the inside what a program in the sandbox must not be able to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace

from temper.errors import Unsupported
from temper.measure.sandbox.outcome import Outcome
from temper.measure.sandbox.policy import Isolation

ATTEMPTS = {
    "open a socket": "socket.socket()",
    "start a process": "os.fork() or os._exit(0)",
    "run another program": "os.execv('/bin/true', ['true'])",
    "signal another process": "os.kill({parent}, 0)",
    "read another process": "open('/proc/{parent}/environ').read()",
    "read a file outside": "open('/etc/passwd').read()",
    "list a folder outside": "os.listdir('/')",
    "write outside": "os.open('/tmp', os.O_TMPFILE | os.O_WRONLY)",
}
"""What is tried, and how."""

_BEGIN = """
import json, os, socket
found = {}
def attempt(name, act):
    try:
        act()
        found[name] = "done"
    except OSError as error:
        found[name] = f"refused: {error.strerror}"
"""
_END = "print(json.dumps(found))\n"


def probe(run: Callable[[str], Outcome], *, weaker: bool) -> Isolation:
    """The isolation that holds here.

    Raises:
        Unsupported: something could be done that a layer in place should have stopped; with `weaker` it is noted.
    """
    attempts = [f"attempt({name!r}, lambda: {how.format(parent=os.getpid())})\n" for name, how in ATTEMPTS.items()]
    outcome = run(_BEGIN + "".join(attempts) + _END)
    if not outcome.passed:
        raise Unsupported(
            f"the sandbox's probe ended as '{outcome.status}': {outcome.stderr.strip()[-300:]}", param="sandbox"
        )
    found: dict[str, str] = json.loads(outcome.stdout)
    done = [name for name, how in found.items() if how == "done"]
    if done and not weaker:
        raise Unsupported(
            f"a program in the sandbox could {', '.join(done)}",
            param="sandbox",
            hint="--allow-weaker-isolation runs programs all the same",
        )
    return replace(outcome.isolation, full=outcome.isolation.full and not done, probed=found)
