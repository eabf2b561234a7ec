"""What a program in the sandbox may use, and what it is kept from."""

from __future__ import annotations

import itertools
import math
import os
import platform
import stat
import sysconfig
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from temper.measure.sandbox import seccomp

LAYERS = ("limits", "privileges", "landlock", "seccomp")
"""Resource limits; no_new_privs, no capabilities and a user of its own; the file system; system calls."""
NEVER_WITHOUT = ("limits", "privileges")
"""Layers that even a weaker isolation must have."""

_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_NUM_UIDS = 4096
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one program may use. It is one process: it may start threads, never another process."""

    wall_s: float = 10.0
    cpu_s: float = 8.0
    memory_bytes: int = 512 << 20
    """Of address space, which bounds the threads' stacks as well."""
    output_bytes: int = 256 << 10
    """Of standard output and standard error together."""
    file_bytes: int = 8 << 20
    """Of one file, and of all in the private folder."""
    threads: int = 32
    open_files: int = 64


@dataclass(frozen=True, slots=True)
class Isolation:
    """What kept a program in."""

    full: bool
    missing: dict[str, str] = field(default_factory=dict)
    """Layers that could not be put on, with the reason."""
    own_user: bool = False
    """It ran as a user that nobody else is; else as the caller, without capabilities."""
    probed: dict[str, str] = field(default_factory=dict)
    """What a probe tried from inside, and how that ended."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that hold."""
        return tuple(layer for layer in LAYERS if layer not in self.missing)

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"layers": self.layers, **asdict(self)}


def resource_limits(limits: Limits, uid: int | None) -> dict[str, int]:
    """The resource limits of the kernel by name, as `resource` spells them."""
    # Threads are counted by user: one who is not alone needs room beside what is there already.
    others = 0 if uid is not None else _num_threads(os.getuid())
    return {
        "AS": limits.memory_bytes,
        "CPU": math.ceil(limits.cpu_s),
        "FSIZE": limits.file_bytes,
        "NPROC": others + limits.threads,
        "NOFILE": limits.open_files,
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
        "SIGPENDING": 64,
        "RTPRIO": 0,
    }


def library_paths() -> list[str]:
    """Where the interpreter's own library and those of the system lie."""
    paths = sysconfig.get_paths()
    return [paths["stdlib"], paths["platstdlib"], *_LIBRARIES]


def package_paths() -> list[str]:
    """Folders of installed packages."""
    paths = sysconfig.get_paths()
    return list(dict.fromkeys((paths["purelib"], paths["platlib"])))


def device_paths() -> list[str]:
    """Devices that only give or take bytes."""
    return list(_DEVICES)


def own_uid(*needed: Path) -> int | None:
    """A user id that nobody else has, where we may take one and it could still read `needed`; else None."""
    if os.getuid() != 0 or not all(_open_to_all(path) for path in needed):
        return None
    try:
        words = Path("/proc/self/uid_map").read_text().split("\n")[0].split()
    except OSError:
        return None
    first, size = int(words[0]), int(words[2])
    if size <= 2 * _NUM_UIDS:
        return None  # a user namespace too small to have users to spare
    number = (os.getpid() * 31 + next(_numbers)) % _NUM_UIDS
    return min(first + size, 0xFFFF0000) - 1 - _NUM_UIDS + number


def filter_bytes() -> bytes:
    """The seccomp filter for this machine; empty where there is none."""
    machine = platform.machine()
    return seccomp.assemble(machine) if seccomp.known(machine) else b""


def _open_to_all(path: Path) -> bool:
    """Whether any user may pass through every folder above `path` and read it."""
    try:
        resolved = path.resolve(strict=True)
        above = all(folder.stat().st_mode & stat.S_IXOTH for folder in resolved.parents)
        return above and bool(resolved.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _num_threads(uid: int) -> int:
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == uid:
                    found += len(list((entry / "task").iterdir()))
            except OSError:
                continue
    return found
