"""What is freed within stays in the process: blocks of the same size wait for no page of the kernel."""

from __future__ import annotations

import ctypes
import resource

import pytest

from temper.refine.train.heap import freed_memory_kept

BYTES = 24 << 20
NUM_BLOCKS = 8


def faults_of_later_steps() -> int:
    """Pages that the kernel had to bring for blocks that came after the first ones of their size."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.restype, libc.free.argtypes = None, (ctypes.c_void_p,)
    before = 0
    for number in range(4):
        if number == 1:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [libc.malloc(BYTES) for _ in range(NUM_BLOCKS)]
        for block in blocks:
            ctypes.memset(block, 1, BYTES)
        for block in blocks:
            libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_memory_is_kept_within_and_given_back_after() -> None:
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("malloc is not glibc's here")
    with freed_memory_kept():
        kept = faults_of_later_steps()
    given_back = faults_of_later_steps()
    assert kept < given_back // 10
