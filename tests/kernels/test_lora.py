"""Adapters on linear ops: the reference is a merged weight row by row, and native code gives its numbers."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.kernels.arithmetic import set_arithmetic
from temper.kernels.executor import StepBatch
from temper.kernels.fuse import fuse
from temper.kernels.lora import LowRank, TakesAdapters, low_rank
from temper.kernels.native import NativeExecutor, available_isas, load_executor
from temper.kernels.reference import ReferenceExecutor, as_float32
from temper.kernels.stored import Format, StoredTensor
from temper.kernels.weights import convert
from tests.kernels.programs import Shape, batch, program, spec, tensors
from tests.kernels.test_executor import stored_tensors

SHAPE = Shape(bias=True, head_norm=True)
STEP = batch([([3, 1, 4, 1, 5, 9], 0, [0]), ([2], 0, [1]), ([6, 5], 0, [2]), ([7, 7, 7], 0, [3])])
ALL = ("q", "k", "v", "o", "gate", "up", "down")


def stored(name: str, values: np.ndarray, fmt: Format = "f32") -> StoredTensor:
    plain = StoredTensor(name, "f32", values.shape, np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8))
    if fmt == "bf16":
        return convert(plain, "bf16")
    if fmt == "f16":
        return StoredTensor(name, "f16", values.shape, values.astype(np.float16).reshape(-1).view(np.uint8))
    return plain


def adapter(
    shape: Shape, seed: int, names: tuple[str, ...] = ALL, rank: int = 4, fmt: Format = "f32"
) -> dict[str, LowRank]:
    rng = np.random.default_rng(seed)
    weights, found = tensors(shape), {}
    full = [f"l{i}.{n}" for i in range(shape.layers) for n in names if n != "embed"]
    for name in [*full, *(["embed"] if "embed" in names else [])]:
        n, k = weights[name].shape
        a, b = rng.standard_normal((rank, k)) / np.sqrt(k), rng.standard_normal((n, rank)) / np.sqrt(rank)
        found[name] = LowRank(stored(name + ".a", a, fmt), stored(name + ".b", b, fmt), 0.5 + rng.random())
    return found


def merged(values: dict[str, np.ndarray], updates: dict[str, LowRank]) -> dict[str, np.ndarray]:
    out = dict(values)
    for name, update in updates.items():
        out[name] = values[name] + np.float32(update.scale) * (as_float32(update.b) @ as_float32(update.a))
    return out


def with_slots(step: StepBatch, slots: list[int]) -> StepBatch:
    return dataclasses.replace(step, adapters=np.array(slots, np.int32))


def alone(step: StepBatch, s: int) -> StepBatch:
    """One sequence of a step that begins all of its sequences."""
    begin, end = int(step.q_starts[s]), int(step.q_starts[s + 1])
    return batch([(step.tokens[begin:end].tolist(), 0, [int(step.block_tables[s, 0])])])


@pytest.mark.parametrize("fused", [False, True])
def test_the_reference_is_a_merged_model(fused: bool) -> None:
    one, two = adapter(SHAPE, 1), adapter(SHAPE, 2, ("q", "down"), rank=2)
    ops = fuse(program(SHAPE), {n: t.shape for n, t in tensors(SHAPE).items()}) if fused else program(SHAPE)
    executor = ReferenceExecutor(ops, tensors(SHAPE), spec(SHAPE))
    slots = [executor.attach_adapter(executor.pack_adapter(updates)) for updates in (one, two)]
    executor.forward(with_slots(STEP, [slots[0], -1, slots[1], slots[0]]))
    found = executor.logits()
    for s, updates in enumerate((one, {}, two, one)):
        plain = ReferenceExecutor(ops, merged(tensors(SHAPE), updates), spec(SHAPE))
        plain.forward(alone(STEP, s))
        rows = found[STEP.q_starts[s] : STEP.q_starts[s + 1]]
        np.testing.assert_allclose(rows, plain.logits(), rtol=1e-4, atol=1e-4)
    executor.forward(STEP)
    assert np.abs(executor.logits()[:6] - found[:6]).max() > 0.05  # or all of it would prove nothing


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("fmt", ["f32", "bf16", "f16"])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_native_adapters_are_the_reference(isa: str, fmt: Format, data: st.DataObject) -> None:
    shape = Shape(
        layers=1,
        hidden=data.draw(st.sampled_from([16, 40, 96]), "hidden"),
        mlp=data.draw(st.sampled_from([24, 150]), "mlp"),
        bias=data.draw(st.booleans(), "bias"),
    )
    count = data.draw(st.integers(1, 3), "adapters")
    names = [tuple(data.draw(st.sets(st.sampled_from((*ALL, "embed")), min_size=1), "names")) for _ in range(count)]
    ranks = [data.draw(st.sampled_from([1, 3, 16, 33]), "rank") for _ in range(count)]
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=7), "lengths")
    slots = data.draw(st.lists(st.integers(-1, count - 1), min_size=len(lengths), max_size=len(lengths)), "slots")
    rng = np.random.default_rng(len(lengths))
    parts = [
        (rng.integers(0, shape.vocab, n).tolist(), 0, [3 * s, 3 * s + 1, 3 * s + 2]) for s, n in enumerate(lengths)
    ]
    step = with_slots(batch(parts, all_rows=data.draw(st.booleans(), "all rows")), slots)
    made = [adapter(shape, i, n, r, fmt) for i, (n, r) in enumerate(zip(names, ranks, strict=True))]
    reference = ReferenceExecutor(program(shape), tensors(shape), spec(shape))
    native = load_executor(program(shape), tensors(shape), spec(shape), isa=isa, threads=2)
    for executor in (reference, native):
        assert isinstance(executor, TakesAdapters)
        assert [executor.attach_adapter(executor.pack_adapter(updates)) for updates in made] == list(range(count))
        executor.forward(step)
    np.testing.assert_allclose(native.logits(), reference.logits(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("precision", ["int8", "int4", "bf16"])
@pytest.mark.parametrize("arithmetic", ["int8", "bf16"])
def test_a_row_does_not_depend_on_its_neighbours(precision: str, arithmetic: Literal["int8", "bf16"]) -> None:
    """Bit for bit: alone, among others, with rows of its adapter next to it or apart, on any ISA, fused or not."""
    shape = Shape(hidden=96, mlp=160, head_dim=32)
    values = stored_tensors(shape, precision)
    one, two = adapter(shape, 1, (*ALL, "embed"), rank=5, fmt="bf16"), adapter(shape, 2, ("v", "up"), rank=20)
    plain = set_arithmetic(program(shape), arithmetic)
    first = None
    for isa in available_isas():
        for executor in (
            load_executor(program(shape), values, spec(shape), isa=isa, threads=2, arithmetic=arithmetic),
            NativeExecutor(plain, values, spec(shape), isa=isa, arithmetic=arithmetic),
        ):
            for updates in (one, two):
                executor.attach_adapter(executor.pack_adapter(updates))
            for slots in ([0, 1, -1, 0], [0, 0, 1, 1], [0, -1, -1, -1]):
                executor.forward(with_slots(STEP, slots))
                many = executor.logits()
                executor.forward(with_slots(alone(STEP, 0), [0]))
                np.testing.assert_array_equal(many[:6], executor.logits())
                first = many[:6] if first is None else first
                np.testing.assert_array_equal(many[:6], first)


def test_rows_without_an_adapter_are_those_of_a_model_without() -> None:
    executor = load_executor(program(SHAPE), tensors(SHAPE), spec(SHAPE))
    executor.forward(STEP)
    plain = executor.logits()
    slot = executor.attach_adapter(executor.pack_adapter(adapter(SHAPE, 1)))
    executor.forward(with_slots(STEP, [-1, -1, slot, -1]))
    mixed = executor.logits()
    np.testing.assert_array_equal(np.delete(mixed, [7, 8], 0), np.delete(plain, [7, 8], 0))
    assert np.abs(mixed[7:9] - plain[7:9]).max() > 0.05


def test_slots_are_reused_and_wrong_ones_refused() -> None:
    for executor in (
        load_executor(program(SHAPE), tensors(SHAPE), spec(SHAPE)),
        ReferenceExecutor(program(SHAPE), tensors(SHAPE), spec(SHAPE)),
    ):
        one, two = (executor.pack_adapter(adapter(SHAPE, seed)) for seed in (1, 2))
        assert [executor.attach_adapter(p) for p in (one, two, one)] == [0, 1, 2]
        executor.forward(with_slots(STEP, [1, 1, 1, 1]))
        expected = executor.logits()
        executor.detach_adapter(0)
        with pytest.raises(ValueError, match="slot 0"):
            executor.forward(with_slots(STEP, [1, 0, 1, 1]))
        with pytest.raises(ValueError, match="slot 0"):
            executor.detach_adapter(0)
        for wrong in (-2, 3, 1 << 20):
            with pytest.raises(ValueError, match="slot"):
                executor.forward(with_slots(STEP, [1, wrong, 1, 1]))
        with pytest.raises(ValueError, match="adapters must"):
            executor.forward(with_slots(STEP, [1]))
        executor.detach_adapter(1)
        assert executor.attach_adapter(two) == 0
        executor.forward(with_slots(STEP, [0, 0, 0, 0]))
        np.testing.assert_array_equal(executor.logits(), expected)


def test_updates_that_do_not_fit_are_refused() -> None:
    good = adapter(SHAPE, 1)["l0.q"]
    q = stored("q", np.zeros((48, 4)))
    wrong = {
        "no linear op": {"l0.norm1": good, "nothing": good},
        r"takes A \[r, 48\] and B \[16, r\]": {"l0.k": good},
        "must be f32, f16 or bf16": {"l0.q": dataclasses.replace(good, b=StoredTensor("b", "i32", (48, 4), q.data))},
        "finite": {"l0.q": dataclasses.replace(good, scale=float("nan"))},
    }
    for executor in (
        load_executor(program(SHAPE), tensors(SHAPE), spec(SHAPE)),
        ReferenceExecutor(program(SHAPE), tensors(SHAPE), spec(SHAPE)),
    ):
        for message, updates in wrong.items():
            with pytest.raises(ValueError, match=message):
                executor.pack_adapter(updates)


def test_formats_may_differ_within_one_op() -> None:
    updates = adapter(SHAPE, 1)
    updates["l0.q"] = adapter(SHAPE, 1, fmt="bf16")["l0.q"]
    native = load_executor(program(SHAPE), tensors(SHAPE), spec(SHAPE))
    reference = ReferenceExecutor(program(SHAPE), tensors(SHAPE), spec(SHAPE))
    for executor in (native, reference):
        executor.forward(with_slots(STEP, [executor.attach_adapter(executor.pack_adapter(updates))] * 4))
    np.testing.assert_allclose(native.logits(), reference.logits(), rtol=2e-4, atol=2e-4)


def test_op_times_count_what_adapters_add() -> None:
    executor = load_executor(program(SHAPE), tensors(SHAPE), spec(SHAPE))
    slot = executor.attach_adapter(executor.pack_adapter(adapter(SHAPE, 1, ("o",), rank=16)))
    executor.set_timing(True)
    counts = []
    for step in (STEP, with_slots(STEP, [slot, -1, -1, slot])):
        executor.reset_op_times()
        executor.forward(step)
        (found,) = [time for time in executor.op_times() if time.label.startswith("fused_linear 48x48 o")]
        counts.append((found.bytes, found.operations))
    assert counts[1][0] - counts[0][0] == SHAPE.layers * 2 * 16 * 48 * 4
    assert counts[1][1] - counts[0][1] == SHAPE.layers * 2 * 2 * 9 * 16 * 48


def test_low_rank_is_two_products_and_a_scale() -> None:
    x, a = np.array([[1, 2], [3, 4]], np.float32), np.array([[1, 1]], np.float32)
    found = low_rank(x, a, np.array([[1], [10], [100]], np.float32), 0.5)
    np.testing.assert_array_equal(found, [[1.5, 15, 150], [3.5, 35, 350]])
