"""What runs inside the sandbox: give up everything, then run the program.

Started by path with `python -I -S` by `run`, so it imports nothing of Temper. One line of JSON on standard input says
what to give up; the nonce stands behind it and is read only when the program has come to its end. What was reached is
written to the result pipe before the program starts, the nonce after it.

It stops a program that exits early or prints what a passed test would print. It cannot stop one that searches its own
process for the nonce: a test and what it tests share an interpreter, and the test would believe it anyhow.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import runpy
import struct
import sys
from collections.abc import Callable
from typing import Any

EXIT_REFUSED = 120
"""The exit code when a required layer could not be put on; the program was not started."""

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 24, 22, 38
_SECCOMP_MODE_FILTER = 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_DIR, _MAKE_REG, _REFER, _TRUNCATE = 1 << 7, 1 << 8, 1 << 13, 1 << 14
_READ = _READ_FILE | _READ_DIR
_WRITE = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many bits of file-system rights each Landlock ABI knows; later ones as the last."""


class Refused(Exception):
    """A layer could not be put on."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def landlock_abi() -> int:
    """The Landlock ABI of this kernel; 0 where there is none."""
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def limit(limits: dict[str, int]) -> None:
    """Set each resource limit, soft and hard."""
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def drop_privileges(uid: int | None) -> None:
    """Become `uid`, which nobody else is; or stay who we are without any capability."""
    libc = _libc()
    if os.getuid() == 0:
        for capability in range(_LAST_CAPABILITY + 1):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
        _checked(libc.syscall(126 if os.uname().machine == "x86_64" else 91, header, b"\0" * 24), "capset")
    _checked(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "no core dumps")
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def landlock(readable: list[str], writable: list[str], devices: list[str]) -> None:
    """Allow these paths and what lies beneath; nothing else in the file system, no TCP, no signals to others."""
    abi = landlock_abi()
    if abi < 1:
        raise Refused("this kernel has no Landlock")
    libc = _libc()
    handled = (1 << _RIGHTS_BY_ABI.get(abi, 16)) - 1
    network = 0b11 if abi >= 4 else 0  # binding and connecting TCP
    scoped = 0b11 if abi >= 6 else 0  # abstract Unix sockets, signals
    attributes = struct.pack("=QQQ", handled, network, scoped)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    rules = _checked(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0), "Landlock")
    for paths, rights in ((readable, _READ), (writable, _READ | _WRITE), (devices, _READ_FILE | _WRITE_FILE)):
        for path in paths:
            try:
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # a folder of libraries that this system does not have
            allowed = rights & handled & (-1 if os.path.isdir(path) else _OF_FILES)
            rule = struct.pack("=Qi", allowed, descriptor)
            _checked(libc.syscall(_ADD_RULE, rules, 1, rule, 0), f"Landlock rule for {path}")
            os.close(descriptor)
    _checked(libc.syscall(_RESTRICT_SELF, rules, 0), "Landlock")
    os.close(rules)


def seccomp(instructions: bytes) -> None:
    """Refuse system calls by this filter from now on."""
    program = _Program(len(instructions) // 8, instructions)
    _checked(_libc().prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "seccomp")


def confine(policy: dict[str, Any]) -> dict[str, str]:
    """Put on every layer; returns what is missing, with the reason.

    Raises:
        Refused: a layer is missing that the policy requires.
    """
    missing: dict[str, str] = {}
    steps: dict[str, Callable[[], None]] = {
        "limits": lambda: limit(policy["limits"]),
        "privileges": lambda: drop_privileges(policy["uid"]),
        "landlock": lambda: landlock(policy["readable"], policy["writable"], policy["devices"]),
        "seccomp": lambda: seccomp(bytes.fromhex(policy["seccomp"])),
    }
    for name, step in steps.items():
        try:
            step()
        except (Refused, OSError, ValueError) as error:
            if name in policy["required"]:
                raise Refused(f"{name}: {error}") from None
            missing[name] = str(error)
    return missing


def main() -> None:
    """Read the policy, confine, run the program, show the nonce."""
    policy = json.loads(_line(0))
    secret = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    result = int(policy["result"])
    try:
        missing = confine(policy)
    except Refused as error:
        os.write(result, json.dumps({"refused": str(error)}).encode() + b"\n")
        os._exit(EXIT_REFUSED)
    os.write(result, json.dumps({"missing": missing}).encode() + b"\n")
    sys.path[:0] = policy["path"]
    sys.argv = [policy["program"], *policy["arguments"]]
    runpy.run_path(policy["program"], run_name="__main__")
    sys.stdout.flush()
    os.write(result, _line(secret))


def _line(descriptor: int) -> bytes:
    """One line, byte by byte: what stands behind it is left in the pipe."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            break
        line += byte
    return line


if __name__ == "__main__":
    main()
