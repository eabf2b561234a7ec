"""What we may use is the tightest of affinity, cgroup v1 and cgroup v2, on a machine made of files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from temper import machine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "proc/meminfo", "MemTotal:  8000 kB\nMemAvailable:  6000 kB\n")
    write(tmp_path, "proc/cpuinfo", "model name\t: A CPU\nflags\t\t: fpu avx2 hypervisor avx512f\n\nmodel name\t: B\n")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_cgroups_the_machine_is_ours(root):
    assert machine.memory_limit_bytes(root) == 8000 * 1024
    assert machine.available_memory_bytes(root) == 6000 * 1024


def test_the_tightest_group_above_us_binds_v2(root):
    write(root, "proc/self/cgroup", "0::/outer/inner\n")
    write(root, "sys/fs/cgroup/outer/inner/memory.max", "max\n")
    write(root, "sys/fs/cgroup/outer/memory.max", "2048000\n")
    write(root, "sys/fs/cgroup/outer/memory.current", "1000000\n")
    write(root, "sys/fs/cgroup/outer/memory.stat", "anon 5\ninactive_file 400000\n")
    write(root, "sys/fs/cgroup/outer/cpu.max", "25000 100000\n")
    assert machine.memory_limit_bytes(root) == 2048000
    assert machine.available_memory_bytes(root) == 2048000 - 600000
    assert machine.usable_cores(root) == 0.25


def test_two_threads_of_a_core_are_one_core(root, monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {1, 2, 5, 6, 7})
    assert machine.physical_cpus(root) == (1, 2, 5, 6, 7)
    for cpu, siblings in {1: "1,5", 5: "1,5", 2: "2,6", 6: "2,6", 7: "3,7"}.items():
        write(root, f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", siblings + "\n")
    assert machine.physical_cpus(root) == (1, 2, 7)


def test_cgroup_v1(root):
    write(root, "proc/self/cgroup", "4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n")
    write(root, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", "3000000\n")
    write(root, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1000000\n")
    write(root, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "50000\n")
    write(root, "sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n")
    assert machine.memory_limit_bytes(root) == 3000000
    assert machine.available_memory_bytes(root) == 2000000
    assert machine.usable_cores(root) == 0.5


def test_no_limits_written_as_max_or_minus_one(root):
    write(root, "proc/self/cgroup", "1:cpu:/\n0::/\n")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    write(root, "sys/fs/cgroup/cpu.max", "max 100000\n")
    assert machine.usable_cores(root) >= 1


def test_a_container_sees_its_own_group_at_the_root(root):
    write(root, "proc/self/cgroup", "0::/not/visible/here\n")
    write(root, "sys/fs/cgroup/memory.max", "1024000\n")
    assert machine.memory_limit_bytes(root) == 1024000


def test_inspect(root):
    found = machine.inspect(root)
    assert (found.cpu, found.isa, found.virtual) == ("A CPU", ("avx2", "avx512f"), True)


def test_describe_is_json_about_this_machine():
    data = json.loads(json.dumps(machine.describe()))
    assert data["cores"] >= 1
    assert data["memory_bytes"] > 0
