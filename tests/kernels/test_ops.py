"""Each op of the native executor, on every instruction set, against the reference; equal bits between the sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.kernels.executor import ExecutorSpec
from temper.kernels.native import NativeExecutor, available_isas
from temper.kernels.ops import Op, Program
from temper.kernels.reference import ReferenceExecutor
from tests.kernels.programs import Shape, batch, program, spec, tensors

SPEC = spec(Shape())


def run_all(
    ops: Program, values: dict[str, np.ndarray], tokens: list[int], atol: float, sizes: ExecutorSpec = SPEC
) -> None:
    """Native on every ISA close to the reference, and bit-equal to each other."""
    pages = list(range(-(-len(tokens) // 16)))
    step = batch([(tokens, 0, pages)])
    reference = ReferenceExecutor(ops, values, sizes)
    reference.forward(step)
    outs = []
    for isa in available_isas():
        native = NativeExecutor(ops, values, sizes, isa=isa, threads=2)
        native.forward(step)
        outs.append(native.logits())
        np.testing.assert_allclose(outs[-1], reference.logits(), atol=atol, rtol=1e-4)
    for out in outs[1:]:
        np.testing.assert_array_equal(out, outs[0])


def one_op(op: Op, width: int, seed: int, **more: np.ndarray) -> tuple[Program, dict[str, np.ndarray]]:
    """embed → op on "x" → select → a head that lets every column through."""
    rng = np.random.default_rng(seed)
    out_width = more["w"].shape[0] if op.kind == "linear" else width
    values = {"embed": rng.normal(0, 2, (300, width)).astype(np.float32),
              "other": rng.normal(0, 2, (300, width)).astype(np.float32),
              "eye": np.eye(out_width, dtype=np.float32), **more}  # fmt: skip
    ops = (
        Op("embed", "x", (), ("embed",)),
        op,
        Op("select_rows", "y", ("y",)),
        Op("linear", "logits", ("y",), ("eye",)),
    )
    return ops, values


rows = st.integers(1, 300)
seeds = st.integers(0, 1000)


@settings(deadline=None, max_examples=12)
@given(rows, st.integers(1, 200), seeds)
def test_rms_norm(num_rows: int, width: int, seed: int) -> None:
    w = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
    run_all(*one_op(Op("rms_norm", "y", ("x",), ("w",), {"eps": 1e-5}), width, seed, w=w), list(range(num_rows)), 1e-5)


@settings(deadline=None, max_examples=8)
@given(rows, st.integers(1, 5), st.integers(1, 40), seeds)
def test_rms_norm_per_head(num_rows: int, heads: int, head_dim: int, seed: int) -> None:
    w = np.random.default_rng(seed).standard_normal(head_dim).astype(np.float32)
    op = Op("rms_norm", "y", ("x",), ("w",), {"eps": 1e-5})
    run_all(*one_op(op, heads * head_dim, seed, w=w), list(range(num_rows)), 1e-5)


@settings(deadline=None, max_examples=12)
@given(rows, st.integers(1, 200), seeds)
def test_silu_mul_and_add(num_rows: int, width: int, seed: int) -> None:
    for kind in ("silu_mul", "add"):
        run_all(*one_op(Op(kind, "y", ("x", "x")), width, seed), list(range(num_rows)), 1e-5)


@settings(deadline=None, max_examples=12)
@given(rows, st.integers(1, 3), st.integers(1, 40), st.booleans(), seeds)
def test_rope(num_rows: int, heads: int, half: int, interleaved: bool, seed: int) -> None:
    inv_freq = (10000.0 ** (-np.arange(half) / half)).astype(np.float32)
    attrs = {"head_dim": 2 * half, "interleaved": float(interleaved), "scale": 1.25}
    op = Op("rope", "y", ("x",), ("inv_freq",), attrs)
    run_all(*one_op(op, heads * 2 * half, seed, inv_freq=inv_freq), list(range(num_rows)), 1e-4)


@settings(deadline=None, max_examples=8)
@given(rows, st.integers(1, 200), seeds)
def test_add_bias(num_rows: int, width: int, seed: int) -> None:
    b = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
    run_all(*one_op(Op("add_bias", "y", ("x",), ("b",)), width, seed, b=b), list(range(num_rows)), 1e-5)


@pytest.mark.parametrize(
    "shape", [Shape(bias=True), Shape(head_norm=True, head_dim=24), Shape(interleaved=True, head_dim=20)]
)
def test_whole_programs(shape: Shape) -> None:
    run_all(program(shape), tensors(shape), list(range(70)), 1e-3, spec(shape))
