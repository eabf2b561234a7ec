"""Freed memory is kept for the next step, not given back to the kernel and asked for again.

Every step takes and frees the same activations. glibc gives the top of its heap back when the backward pass has freed
them, and the next step waits for the kernel to clear each page anew.

Blocks that glibc maps apart stay so: kept in the heap too they saved as much time again, but glibc 2.36 seldom reuses a
large aligned block for one of another size, and a heap of 5 GB grew to 20 within 600 steps of examples of all lengths.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT: Final = 1 << 30
"""What may lie free at the top of the heap."""
_LARGEST_MMAP: Final = 32 << 20
"""The highest that glibc moves to by itself (DEFAULT_MMAP_THRESHOLD_MAX of mallopt(3)); it trims at twice as much."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within, what is freed stays in the process; at the end it goes back. Does nothing where malloc is not glibc's."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    _set_trim(libc, _KEPT)
    try:
        yield
    finally:
        _set_trim(libc, 2 * _LARGEST_MMAP)
        libc.malloc_trim(ctypes.c_size_t(0))


def _set_trim(libc: ctypes.CDLL, threshold: int) -> None:
    """Either setting ends glibc's own adjusting of both, so the other one is put where that would have led."""
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP)
    libc.mallopt(_M_TRIM_THRESHOLD, threshold)
