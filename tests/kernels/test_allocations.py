"""A step asks the heap for nothing: counted by a preloaded malloc, for calls that come out of the native module."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from temper.kernels import _native

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not sys.platform.startswith("linux") or shutil.which("g++") is None:
        pytest.skip("needs Linux and a compiler")
    library = tmp_path_factory.mktemp("malloc") / "counting_malloc.so"
    source = HERE / "counting_malloc.cpp"
    subprocess.run(["g++", "-O1", "-std=c++17", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


@pytest.mark.parametrize("arithmetic", ["int8", "bf16"])
def test_a_step_allocates_nothing(counting: Path, arithmetic: str):
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = os.environ | {"LD_PRELOAD": str(counting), "PYTHONPATH": path}
    command = [sys.executable, "-m", "tests.kernels.test_allocations", str(counting), arithmetic]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    building, *steps = (int(word) for word in found.stdout.split())
    assert building > 100, "it counts"
    assert steps == [0] * len(steps)


def _count(library: str, arithmetic: str) -> None:
    """Print allocations of building an executor, then of each of some steps."""
    import numpy as np

    from temper.kernels.executor import SamplerParams
    from temper.kernels.native import load_executor
    from tests.kernels.programs import Shape, batch, program, spec, tensors

    shape = Shape(layers=3, hidden=96, mlp=160, head_dim=32)
    heap = ctypes.CDLL(library)
    heap.watch.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    heap.counted.restype = ctypes.c_long
    ours = [
        line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(_native.__file__)
    ]
    begins, ends = zip(*(line[0].split("-") for line in ours), strict=True)
    where = int(begins[0], 16), int(ends[-1], 16)

    heap.watch(*where)
    executor = load_executor(
        program(shape), tensors(shape), spec(shape), threads=2, precision="int8",
        arithmetic=arithmetic, two_digits="head",
    )  # fmt: skip
    slot = executor.open_slot(SamplerParams(seed=0), np.arange(3, dtype=np.int32))
    found = [heap.counted()]
    row = np.zeros(1, np.int32)
    for step in (batch([(list(range(20)), 0, [0, 1])]), batch([([7], 20, [0, 1]), ([3], 0, [2])])):
        executor.forward(step)  # the first one may grow what Python's side keeps
        heap.watch(*where)
        executor.forward(step)
        found.append(heap.counted())
        executor.sample(row, np.array([slot], np.int32), np.zeros(1, np.float32), np.full(1, -1, np.int32))
    print(*found)


if __name__ == "__main__":
    _count(*sys.argv[1:])
