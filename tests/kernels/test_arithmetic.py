"""What linear layers compute in: how near to the reference, the same bits on every ISA and in any company."""

from __future__ import annotations

import numpy as np
import pytest

from temper.kernels.arithmetic import chosen, set_arithmetic
from temper.kernels.fuse import fuse
from temper.kernels.native import available_isas, load_executor
from temper.kernels.ops import LOGITS
from temper.kernels.reference import ReferenceExecutor
from temper.kernels.stored import StoredTensor
from temper.kernels.weights import convert, dequantize, linear_reference
from tests.kernels.programs import Shape, batch, program, spec, tensors

SHAPE = Shape(hidden=96, mlp=160, head_dim=32, bias=True, vocab=300)
STEP = batch([([3, 1, 4, 1, 5, 9], 0, [0]), ([2], 0, [1]), ([6, 5], 0, [2])])


def as_int8() -> dict[str, StoredTensor]:
    found = {}
    for name, value in tensors(SHAPE).items():
        stored = StoredTensor(name, "f32", value.shape, np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        found[name] = convert(stored, "int8") if value.ndim == 2 else stored
    return found


def logits(where: str, isa: str = "auto", threads: int = 1, step=STEP) -> np.ndarray:
    """`where` activations have two digits, or another arithmetic."""
    how = {"arithmetic": where} if where in ("bf16", "mixed") else {"arithmetic": "int8", "two_digits": where}
    executor = load_executor(program(SHAPE), as_int8(), spec(SHAPE), isa=isa, threads=threads, **how)
    executor.forward(step)
    return executor.logits()


def test_which_ops_get_a_second_digit():
    fused = fuse(program(SHAPE), {name: value.shape for name, value in tensors(SHAPE).items()})
    for where, expected in {"none": set(), "head": {LOGITS}}.items():
        assert {op.out for op in set_arithmetic(fused, "int8", where) if op.attrs.get("digits") == 2} == expected
    fine = [op for op in set_arithmetic(fused, "int8", "head+qkv") if op.attrs.get("digits") == 2]
    assert [op.out for op in fine] == ["q.1+k.1+v.1", "q.4+k.4+v.3", LOGITS]
    everywhere = set_arithmetic(fused, "int8", "all")
    assert all(op.attrs["digits"] == 2 for op in everywhere if op.kind.endswith("linear"))
    assert not any("digits" in op.attrs for op in everywhere if not op.kind.endswith("linear"))


def test_each_digit_brings_the_logits_nearer_to_the_reference():
    reference = ReferenceExecutor(program(SHAPE), as_int8(), spec(SHAPE))
    reference.forward(STEP)
    error = {
        where: np.abs(logits(where) - reference.logits()).mean()
        for where in ("none", "head", "head+qkv", "all", "bf16")
    }
    assert error["head+qkv"] < error["head"] < error["none"]
    assert error["bf16"] < error["none"]
    assert error["all"] < error["none"] / 50


def test_the_definition_in_numpy_keeps_sixteen_bits():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((7, 96)).astype(np.float32)
    weight = as_int8()["l0.gate"]
    exact = x.astype(np.float64) @ dequantize(weight).astype(np.float64).T
    one, two = (np.abs(linear_reference(x, weight, digits) - exact).max() for digits in (1, 2))
    assert two < one / 50


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("where", ["all", "bf16"])
def test_same_bits_on_every_isa_and_thread_count(isa: str, threads: int, where: str):
    np.testing.assert_array_equal(logits(where, isa, threads), logits(where, "scalar"))


@pytest.mark.parametrize("where", ["all", "bf16"])
def test_a_row_depends_on_no_other_row(where: str):
    alone = logits(where, step=batch([([2], 0, [1])]))
    np.testing.assert_array_equal(logits(where)[6:7], alone)


def test_what_auto_comes_to():
    assert chosen("auto", "amx", False) == "mixed"
    assert chosen("auto", "amx", True) == "bf16"
    assert {chosen("auto", isa, False) for isa in ("avx512", "avx2", "scalar")} == {"int8"}
    assert chosen("int8", "amx", True) == "int8"
    with pytest.raises(ValueError, match="number of rows"):
        chosen("mixed", "amx", True)
    for isa in available_isas():
        executor = load_executor(program(SHAPE), as_int8(), spec(SHAPE), isa=isa)
        assert executor.arithmetic == chosen("auto", isa, False)


@pytest.mark.parametrize("isa", available_isas())
def test_mixed_takes_few_rows_in_two_digits_and_many_in_bf16(isa: str):
    few, many = batch([([2], 0, [1]), ([4, 4], 0, [0])]), STEP
    np.testing.assert_array_equal(logits("mixed", isa, step=few), logits("all", isa, step=few))
    # Nine rows, of which two leave logits: all but the head see nine.
    mixed, bf16 = logits("mixed", isa, step=many), logits("bf16", isa, step=many)
    assert len(mixed) > 4
    np.testing.assert_array_equal(mixed, bf16)
