"""Freed memory is kept for the next step, not given back to the kernel and asked for again.

Every step takes and frees the same large tensors. glibc serves blocks above its mmap threshold with pages of their own,
which go back at once; the next step then waits for the kernel to clear each page anew: a quarter of a step of
SmolLM2-135M. The price is a heap that is a little larger (there 4 %), for blocks of other sizes do not always fit into
the gaps.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEEP: Final = 1 << 30
_LARGEST_MMAP: Final = 32 << 20
"""The highest that glibc moves to by itself (DEFAULT_MMAP_THRESHOLD_MAX of mallopt(3)); it trims at twice as much."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within, what is freed stays in the process; at the end it goes back. Does nothing where malloc is not glibc's."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    _set(libc, mmap=_KEEP, trim=_KEEP)
    try:
        yield
    finally:
        _set(libc, mmap=_LARGEST_MMAP, trim=2 * _LARGEST_MMAP)
        libc.malloc_trim(ctypes.c_size_t(0))


def _set(libc: ctypes.CDLL, *, mmap: int, trim: int) -> None:
    libc.mallopt(_M_MMAP_THRESHOLD, mmap)
    libc.mallopt(_M_TRIM_THRESHOLD, trim)
