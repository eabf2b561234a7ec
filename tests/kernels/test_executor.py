"""The native executor as a whole: what it refuses, what fusing, threads and quantized weights change."""

from __future__ import annotations

import dataclasses
import os
import threading
import time

import numpy as np
import pytest

from temper.kernels.executor import Executor, SamplerParams
from temper.kernels.native import NativeExecutor, available_isas, load_executor
from temper.kernels.ops import Op
from temper.kernels.reference import ReferenceExecutor
from temper.kernels.stored import StoredTensor
from temper.kernels.weights import Precision, convert
from tests.kernels.programs import Shape, batch, program, spec, tensors
from tests.kernels.test_reference import BAD_BATCHES

STEP = batch([([3, 1, 4, 1, 5, 9], 0, [0]), ([2], 0, [1]), ([6, 5], 0, [2])])


def build(shape: Shape = Shape(), threads: int = 2, isa: str = "auto", **changes: object) -> NativeExecutor:  # noqa: B008
    return load_executor(program(shape), tensors(shape), spec(shape, **changes), threads=threads, isa=isa)


def test_is_an_executor_of_the_widest_isa() -> None:
    executor: Executor = build()
    assert isinstance(executor, NativeExecutor)
    assert executor.isa == available_isas()[0]
    assert executor.vocab_size == 101
    assert executor.kv_block_bytes == spec(Shape()).kv_block_bytes
    assert (executor.num_blocks, executor.block_tokens) == (64, 16)


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_malformed_batches_are_refused(name: str) -> None:
    executor = build()
    with pytest.raises(ValueError):  # noqa: PT011
        executor.forward(dataclasses.replace(batch([([1, 2, 3], 0, [0])]), **BAD_BATCHES[name]))
    executor.forward(STEP)  # and it still works
    assert executor.logits().shape == (9, 101)


def test_too_many_tokens_or_logit_rows_are_refused() -> None:
    executor = build(max_step_tokens=8, max_logit_rows=2)
    with pytest.raises(ValueError, match="1 to 8 tokens; got 9"):
        executor.forward(STEP)
    with pytest.raises(ValueError, match="at most 2 logit rows; got 3"):
        executor.forward(batch([([1, 2, 3], 0, [0])]))


def test_specs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="block_tokens"):
        build(block_tokens=24)
    with pytest.raises(ValueError, match="kv_width"):
        build(kv_width=32)
    with pytest.raises(ValueError, match="layer"):
        build(num_layers=1)
    with pytest.raises(ValueError, match="isa must be one of"):
        build(isa="mmx")
    with pytest.raises(ValueError, match="threads"):
        build(threads=0)
    ops = (Op("embed", "x", (), ("embed",)), Op("linear", "logits", ("x",), ("embed",)))
    with pytest.raises(ValueError, match="select_rows"):
        NativeExecutor(ops, tensors(Shape()), spec(Shape()))


@pytest.mark.parametrize("isa", available_isas())
def test_fused_is_close_to_plain(isa: str) -> None:
    shape = Shape(bias=True, head_norm=True)
    plain = NativeExecutor(program(shape), tensors(shape), spec(shape), isa=isa)
    fused = build(shape, isa=isa)
    for executor in (plain, fused):
        executor.forward(STEP)
    np.testing.assert_array_equal(fused.logits(), plain.logits())


def stored_tensors(shape: Shape, precision: Precision) -> dict[str, StoredTensor]:
    found = {}
    for name, value in tensors(shape).items():
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        stored = StoredTensor(name, "f32", value.shape, data)
        found[name] = convert(stored, precision) if value.ndim == 2 else stored
    return found


@pytest.mark.parametrize(("precision", "most"), [("int8", 0.02), ("bf16", 0.01), ("int4", 0.02)])
def test_quantized_weights_stay_near_the_reference(precision: Precision, most: float) -> None:
    shape = Shape(hidden=96, mlp=160, head_dim=32)
    values = stored_tensors(shape, precision)
    reference = ReferenceExecutor(program(shape), values, spec(shape))
    native = load_executor(program(shape), values, spec(shape))
    for executor in (reference, native):
        executor.forward(STEP)
    error = np.abs(native.logits() - reference.logits()).max() / np.abs(reference.logits()).max()
    assert error < most


@pytest.mark.parametrize("precision", ["int8", "int4", "bf16"])
def test_precision_converts_at_load(precision: Precision) -> None:
    shape = Shape(hidden=96, mlp=160, head_dim=32)
    converted = stored_tensors(shape, precision)
    at_load = load_executor(program(shape), tensors(shape), spec(shape), precision=precision)
    before = load_executor(program(shape), converted, spec(shape))
    for executor in (at_load, before):
        executor.forward(STEP)
    np.testing.assert_array_equal(at_load.logits(), before.logits())
    assert at_load.weight_bytes < load_executor(program(shape), tensors(shape), spec(shape)).weight_bytes


def test_a_tied_head_is_packed_once() -> None:
    shape = Shape()
    tied = build(shape)
    values = tensors(shape)
    values["head"] = values["embed"].copy()
    untied = load_executor((*program(shape)[:-1], Op("linear", "logits", ("h",), ("head",))), values, spec(shape))
    assert untied.weight_bytes > tied.weight_bytes


def test_op_times_count_calls_bytes_and_operations() -> None:
    shape, executor = Shape(), build()
    executor.forward(STEP)
    assert executor.op_times() == []
    executor.set_timing(True)
    for _ in range(3):
        executor.forward(STEP)
    times = {(time.label, time.phase): time for time in executor.op_times()}
    gate_up = times["norm_linear 160x48 gate+up", "mixed"]
    assert gate_up.calls == 3 * shape.layers
    assert gate_up.ns > 0
    assert gate_up.bytes == 3 * shape.layers * 160 * 48 * 4
    assert gate_up.operations == 3 * shape.layers * 2 * len(STEP.tokens) * 160 * 48
    assert gate_up.arithmetic == "f32"
    executor.reset_op_times()
    assert executor.op_times() == []


@pytest.mark.parametrize("window", [0, 3])
def test_attention_is_told_by_phase(window: int) -> None:
    """Every query times every position that it sees, keys and values once each; prompts and decodes apart."""
    shape = Shape(window=window)
    step = batch([([3, 1, 4, 1, 5, 9], 0, [0]), ([2], 5, [1]), ([6, 5], 7, [2])])
    executor = build(shape)
    executor.set_timing(True)
    executor.forward(step)
    times = {time.phase: time for time in executor.op_times() if time.label == "attention"}
    expected = {"prefill": [0, 0], "decode": [0, 0]}
    for s, context in enumerate(step.context_lens.tolist()):
        rows = int(step.q_starts[s + 1] - step.q_starts[s])
        seen = [
            set(range(max(0, end - window) if window else 0, end)) for end in range(context - rows + 1, context + 1)
        ]
        found = expected["prefill" if rows > 1 else "decode"]
        found[0] += 4 * shape.heads * shape.head_dim * sum(len(one) for one in seen)
        found[1] += 2 * shape.kv_heads * shape.head_dim * len(set().union(*seen)) * 4
    for phase, (operations, num_bytes) in expected.items():
        assert times[phase].operations == shape.layers * operations
        assert times[phase].bytes == shape.layers * num_bytes
        assert times[phase].calls == shape.layers
        assert times[phase].ns > 0


def test_forward_releases_the_gil() -> None:
    shape = Shape(layers=6, hidden=256, mlp=512)
    executor = build(shape, threads=1, num_blocks=64)
    step = batch([(list(range(100)) * 5, 0, list(range(32)))])
    ticks, stop = 0, threading.Event()

    def count() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1
            time.sleep(0.0005)

    other = threading.Thread(target=count)
    other.start()
    for _ in range(5):
        executor.forward(step)
    stop.set()
    other.join()
    assert ticks > 5


def test_slots_and_arrays_are_checked() -> None:
    executor = build()
    executor.forward(STEP)
    i32, f32 = np.int32, np.float32
    slot = executor.open_slot(SamplerParams(seed=1), np.array([1], i32))
    good = {"rows": np.array([0], i32), "slots": np.array([slot], i32), "temperatures": np.array([1], f32),
            "forced": np.array([-1], i32)}  # fmt: skip
    assert 0 <= executor.sample(**good)[0] < 101
    bad = {
        "rows": [np.array([9], i32), np.array([-1], i32), np.array([0, 1], i32), np.array([0], np.int64)],
        "slots": [np.array([slot + 1], i32), np.array([-1], i32), np.array([1 << 30], i32)],
        "temperatures": [np.array([-1], f32), np.array([np.nan], f32), np.array([np.inf], f32), np.array([1.0])],
        "forced": [np.array([101], i32), np.array([-2], i32)],
    }
    for name, arrays in bad.items():
        for array in arrays:
            with pytest.raises(ValueError):  # noqa: PT011
                executor.sample(**(good | {name: array}))
    with pytest.raises(ValueError, match="distinct"):
        executor.sample(*(np.repeat(array, 2) for array in good.values()))
    for rows, tokens, top_k in (([9], [0], 1), ([0], [101], 1), ([0], [0], 102), ([0], [0], -1), ([0], [0, 1], 1)):
        with pytest.raises(ValueError):  # noqa: PT011
            executor.logprobs(np.array(rows, i32), np.array(tokens, i32), top_k)
    with pytest.raises(ValueError, match="prompt"):
        executor.open_slot(SamplerParams(seed=1), np.array([101], i32))
    executor.close_slot(slot)
    with pytest.raises(ValueError, match="not open"):
        executor.close_slot(slot)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no threads")
def test_pinned_threads_stay_where_they_are_put():
    cpu = min(os.sched_getaffinity(0))
    found: list[set[int]] = []

    def step() -> None:
        executor = load_executor(program(Shape()), tensors(Shape()), spec(Shape()), threads=2, cpus=[cpu, cpu])
        executor.forward(STEP)
        found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert found == [{cpu}]
    assert os.sched_getaffinity(0) != {cpu} or os.cpu_count() == 1


def test_a_cpu_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="cpus must be in"):
        load_executor(program(Shape()), tensors(Shape()), spec(Shape()), cpus=[-1])


def test_measured_sweeps_change_no_bit(tmp_path):
    shape = Shape(hidden=96, mlp=160, head_dim=32)
    usual, asked = (
        load_executor(program(shape), tensors(shape), spec(shape), precision="int8", sweeps_folder=folder)
        for folder in (None, tmp_path)
    )
    for executor in (usual, asked):
        executor.forward(STEP)
    assert usual.sweeps == {}
    assert set(asked.sweeps) == {"q8"}
    np.testing.assert_array_equal(usual.logits(), asked.logits())
