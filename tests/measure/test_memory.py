from __future__ import annotations

import os
import socket
import subprocess
import sys

from temper.measure import memory


def test_a_server_is_found_by_its_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        assert os.getpid() in memory.server_pids(url)
    assert memory.server_pids(url) == ()
    assert memory.server_pids("https://api.example.com/v1") == ()


def test_memory_grows_with_what_is_held():
    before = memory.rss_bytes([os.getpid()])
    block = bytearray(os.urandom(1 << 20) * 64)
    after = memory.rss_bytes([os.getpid()])
    assert after - before > 48 << 20
    assert 0 < memory.pss_bytes([os.getpid()]) <= after + (8 << 20)
    del block


def test_children_belong_to_the_family():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= set(memory.family([os.getpid()]))
    finally:
        child.communicate(b"\n")


def test_processes_that_are_gone_have_no_memory():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert memory.rss_bytes([child.pid]) is None
    assert memory.pss_bytes([]) is None


async def test_the_watch_keeps_the_peak():
    async with memory.MemoryWatch([os.getpid()]) as watch:
        pass
    assert watch.peak_rss_bytes > 1 << 20
    assert watch.pss_bytes > 1 << 20
    async with memory.MemoryWatch([]) as watch:
        pass
    assert watch.peak_rss_bytes is None
    assert watch.pss_bytes is None
