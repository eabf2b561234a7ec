"""What this machine is, and how much of it we may use.

Reads `/proc` and `/sys/fs/cgroup` when asked, never at import. It knows nothing of models or engines: the
native engine sizes its threads and its cache from here, and every JSON document carries `describe()`.
Where a file is missing (another system, another cgroup version) the answer is what Python itself knows.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ISA_FLAGS = (
    "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vbmi", "avx512_vnni", "avx512_bf16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
"""CPU features that some kernel or peer engine asks for, x86 and Arm, as `/proc/cpuinfo` spells them."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The part of a machine that decides how fast a model runs on it."""

    cpu: str
    arch: str
    system: str
    cores: int
    """Logical cores of the whole machine."""
    usable_cores: float
    """Cores this process may use: affinity and the cgroup's quota, whichever is less."""
    memory_bytes: int
    """Memory of the whole machine."""
    memory_limit_bytes: int
    """The cgroup's limit, or the whole machine's where there is none."""
    isa: tuple[str, ...]
    virtual: bool
    """A hypervisor is below: timings vary with the neighbours."""


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _cgroup_folders(root: Path, controller: str = "") -> list[Path]:
    """The folders whose limits bind this process, innermost first, up to the mount.

    `controller` names a cgroup v1 hierarchy (`cpu`, `memory`); empty is the unified one of v2.
    """
    mount = root / "sys/fs/cgroup" / controller
    relative = ""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            relative = path.strip("/")
    folder = mount / relative
    if not folder.is_dir():  # a namespaced container sees its own group as the mount's root
        folder = mount
    return [folder, *[parent for parent in folder.parents if parent == mount or mount in parent.parents]]


def _number(path: Path) -> int | None:
    """The whole number that a file holds; None for `max`, -1 and files that are not there."""
    text = (_read(path) or "").strip()
    return int(text) if text.isdigit() else None


def usable_cores(root: Path = Path("/")) -> float:
    """Cores this process may keep busy, at least a fraction above zero.

    The smaller of the scheduler affinity and the tightest `cpu.max` (cgroup v2) or `cfs_quota` (v1) above us.
    """
    try:
        cores = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # not Linux
        cores = float(os.cpu_count() or 1)
    for folder in _cgroup_folders(root):
        quota, _, period = (_read(folder / "cpu.max") or "max").strip().partition(" ")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            cores = min(cores, int(quota) / int(period))
    for folder in _cgroup_folders(root, "cpu"):
        quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota_us and period_us:
            cores = min(cores, quota_us / period_us)
    return max(cores, 0.01)


def physical_cpus(root: Path = Path("/")) -> tuple[int, ...]:
    """One CPU of each physical core that this process may use, ascending; all CPUs where the topology is not told."""
    try:
        ours = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        ours = list(range(os.cpu_count() or 1))
    found: dict[str, int] = {}
    for cpu in ours:
        siblings = _read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        found.setdefault(siblings or f"cpu {cpu}", cpu)
    return tuple(sorted(found.values()))


def _meminfo(root: Path) -> dict[str, int]:
    """`/proc/meminfo` in bytes."""
    found: dict[str, int] = {}
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (1024 if words[-1] == "kB" else 1)
    return found


def memory_bytes(root: Path = Path("/")) -> int:
    """Physical memory of the whole machine; 0 when it cannot be told."""
    total = _meminfo(root).get("MemTotal", 0)
    if total == 0 and hasattr(os, "sysconf"):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return total


def _cgroup_memory(root: Path) -> list[tuple[int, int]]:
    """(limit, use that cannot be reclaimed) in bytes for every cgroup above us that has a limit."""
    found = []
    for controller, limit_name, used_name, reclaimable in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder in _cgroup_folders(root, controller):
            limit = _number(folder / limit_name)
            if limit is not None:
                stat = dict(line.split(" ", 1) for line in (_read(folder / "memory.stat") or "").splitlines())
                used = (_number(folder / used_name) or 0) - int(stat.get(reclaimable, 0))
                found.append((limit, max(0, used)))
    return found


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """Memory this process may ever use: the tightest cgroup limit, or the whole machine."""
    return min([memory_bytes(root), *[limit for limit, _ in _cgroup_memory(root)]])


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Memory that can be taken now without pushing anything out: the machine's or the cgroup's rest."""
    free = _meminfo(root).get("MemAvailable", memory_bytes(root))
    return max(0, min([free, *[limit - used for limit, used in _cgroup_memory(root)]]))


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's entries of `/proc/cpuinfo`."""
    first = (_read(root / "proc/cpuinfo") or "").split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def isa_flags(root: Path = Path("/")) -> tuple[str, ...]:
    """Which of `ISA_FLAGS` the CPU has, in that order. What kernels run is decided by cpuid, not by this."""
    info = _cpuinfo(root)
    have = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(flag for flag in ISA_FLAGS if flag in have)


def inspect(root: Path = Path("/")) -> Machine:
    """Look at the machine. `root` stands in for `/` in tests."""
    info = _cpuinfo(root)
    return Machine(
        cpu=info.get("model name") or platform.processor() or platform.machine(),
        arch=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        cores=os.cpu_count() or 1,
        usable_cores=round(usable_cores(root), 2),
        memory_bytes=memory_bytes(root),
        memory_limit_bytes=memory_limit_bytes(root),
        isa=isa_flags(root),
        virtual="hypervisor" in info.get("flags", "").split(),
    )


def describe() -> dict[str, Any]:
    """`inspect()` as plain data, the `machine` key of every JSON document."""
    return {**asdict(inspect()), "python": platform.python_version()}
