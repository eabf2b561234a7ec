"""Fusing keeps the meaning: the reference computes the same from both lists."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.kernels.fuse import fuse
from temper.kernels.ops import Op
from temper.kernels.reference import ReferenceExecutor
from tests.kernels.programs import Shape, batch, program, spec, tensors


def shapes_of(values: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in values.items()}


variants = st.builds(Shape, layers=st.integers(1, 3), kv_heads=st.just(1), heads=st.integers(1, 5),
                     interleaved=st.booleans(), bias=st.booleans(), head_norm=st.booleans())  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(variants)
def test_fused_equals_plain(shape: Shape) -> None:
    values = tensors(shape)
    fused = fuse(program(shape), shapes_of(values))
    step = batch([([3, 1, 4, 1, 5], 0, [0]), ([9, 2], 0, [1])], all_rows=False)
    outs = []
    for ops in (program(shape), fused):
        executor = ReferenceExecutor(ops, values, spec(shape))
        executor.forward(step)
        outs.append(executor.logits())
    np.testing.assert_array_equal(outs[0], outs[1])


def test_a_layer_becomes_six_ops() -> None:
    shape = Shape(layers=3)
    fused = fuse(program(shape), shapes_of(tensors(shape)))
    assert Counter(op.kind for op in fused) == {
        "embed": 1, "norm_linear": 7, "rope_kv_write": 3, "attention": 3, "fused_linear": 3, "silu_linear": 3,
        "select_rows": 1,
    }  # fmt: skip


def test_a_value_with_two_readers_is_not_folded_away() -> None:
    ops = (
        Op("embed", "x", (), ("e",)),
        Op("rms_norm", "h", ("x",), ("n",), {"eps": 1e-5}),
        Op("linear", "y", ("h",), ("w",)),
        Op("add", "z", ("y", "h")),
        Op("add", "z", ("z", "y")),
        Op("linear", "logits", ("z",), ("w",)),
    )
    values = {"e": np.eye(4, 4, dtype=np.float32), "n": np.ones(4, np.float32), "w": np.eye(4, dtype=np.float32)}
    fused = fuse(ops, shapes_of(values))
    assert [op.kind for op in fused] == ["embed", "rms_norm", "linear", "add", "add", "linear"]
