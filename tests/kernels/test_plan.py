"""Places in buffers: nothing alive is overwritten, nothing unwritten is read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.kernels.fuse import fuse
from temper.kernels.ops import Op, columns
from temper.kernels.plan import plan
from tests.kernels.programs import Shape, program, tensors
from tests.kernels.test_fuse import shapes_of, variants


@settings(deadline=None, max_examples=25)
@given(variants, st.booleans())
def test_no_two_live_values_share_a_buffer(shape: Shape, fused: bool) -> None:
    values = tensors(shape)
    ops = program(shape)
    if fused:
        ops = fuse(ops, shapes_of(values))
    planned = plan(ops, shapes_of(values))
    holds: dict[int, str] = {}
    for item in planned.ops:
        for arg, place in zip(item.op.args, item.args, strict=True):
            assert holds[place.buffer] == columns(arg)[0]
            assert place.column + place.width <= planned.buffer_widths[place.buffer]
        if item.out is not None:
            in_place = item.op.attrs.get("add") and item.out.buffer == item.args[-1].buffer
            assert in_place or item.out.buffer not in [place.buffer for place in item.args]
            holds[item.out.buffer] = item.op.out
    assert len(planned.buffer_widths) <= 9


def test_plan_refuses_a_program_that_reads_the_unwritten() -> None:
    with pytest.raises(ValueError, match="no op before it wrote"):
        plan((Op("linear", "logits", ("x",), ("w",)),), {"w": (4, 4)})
    ops = (Op("embed", "x", (), ("e",)), Op("linear", "logits", ("x",), ("w",)))
    with pytest.raises(ValueError, match="5 inputs"):
        plan(ops, {"e": (9, 4), "w": (4, 5)})
