"""Products in bf16: every ISA against the definition, and bit for bit each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from temper.kernels import _native
from temper.kernels.weights import dequantize, linear_bf16_reference
from tests.kernels.stored_samples import FORMATS, stored
from tests.kernels.test_linear import activations, same_bits, shapes, width

ISAS = ("scalar", "avx2", "avx512", "amx")
HERE = _native.kernel_sets()
IN_BF16 = [fmt for fmt in FORMATS if fmt not in ("f32", "f16")]


@pytest.fixture(params=ISAS)
def isa(request):
    if request.param not in HERE:
        pytest.skip(f"this machine has no {request.param}")
    return request.param


def packed(tensor):
    return _native.PackedWeight(tensor.format, tensor.data, *tensor.shape, in_tiles=True)


def linear(weight, x, isa, threads=1):
    return _native.linear(weight, x, isa, threads, arithmetic="bf16")


def assert_near(y, x, tensor):
    """Against the definition, relative to the size of the terms that were added."""
    size = np.abs(x) @ np.abs(dequantize(tensor)).T + 1e-30
    assert np.max(np.abs(y - linear_bf16_reference(x, tensor)) / size) < 1e-6


@pytest.mark.parametrize("fmt", IN_BF16)
@settings(max_examples=15, deadline=None)
@given(shape=shapes)
def test_every_isa_gives_the_definition_and_the_same_bits(fmt, shape):
    k = width(fmt, shape["units"])
    tensor = stored(fmt, shape["n"], k, shape["seed"])
    x = activations(shape["rows"], k, shape["seed"])
    weight = packed(tensor)
    first, *others = (linear(weight, x, name) for name in HERE)
    assert first.shape == (shape["rows"], shape["n"])
    sample = np.random.default_rng(0).permutation(shape["rows"])[:6]
    assert_near(first[sample], x[sample], tensor)
    for other in others:
        assert same_bits(first, other)


@pytest.mark.parametrize("fmt", IN_BF16)
def test_a_row_depends_neither_on_its_company_nor_on_threads(fmt, isa):
    # More than one chunk of inputs, panels not a multiple of anything.
    weight = packed(stored(fmt, 5 * 16 + 3, 1280))
    x = activations(70, 1280)
    alone = np.concatenate([linear(weight, x[r : r + 1], isa) for r in range(len(x))])
    for rows in (1, 2, 4, 5, 15, 16, 17, 32, 33, 48, 49, 64, 70):
        for threads in (1, 2, 7):
            assert same_bits(linear(weight, x[:rows], isa, threads), alone[:rows])
    assert same_bits(linear(weight, x[7:], isa), alone[7:])


def test_more_rows_than_one_sweep_takes(isa):
    weight = packed(stored("q4_1", 40, 64))
    x = activations(1100, 64)
    assert same_bits(linear(weight, x, isa)[1000:], linear(weight, x[1000:], isa))


@pytest.mark.parametrize("fmt", IN_BF16)
def test_packing_loses_nothing(fmt):
    tensor = stored(fmt, 37, 512, seed=3)
    ids = np.arange(37, dtype=np.int32)
    assert same_bits(packed(tensor).lookup(ids), dequantize(tensor))


def test_the_error_is_that_of_bf16(isa):
    """Two roundings to 8 bits a product: below half a per cent of what was added, and usually far below."""
    tensor = stored("q4_1", 96, 576)
    x = activations(20, 576)
    exact = x.astype(np.float64) @ dequantize(tensor).astype(np.float64).T
    size = np.abs(x) @ np.abs(dequantize(tensor)).T
    error = np.abs(linear(packed(tensor), x, isa) - exact) / size
    assert error.max() < 0.002
    assert error.mean() < 0.0003


def test_only_what_is_stored_in_bf16_is_packed_in_tiles(isa):
    x = activations(9, 256)
    for fmt in FORMATS:
        tensor = stored(fmt, 20, 256)
        weight, plain = packed(tensor), _native.PackedWeight(fmt, tensor.data, 20, 256)
        assert weight.in_tiles == (fmt == "bf16")
        if fmt in ("f32", "f16"):  # are multiplied in float32 whatever is asked for
            assert same_bits(linear(weight, x, isa), _native.linear(plain, x, isa))
    with pytest.raises(ValueError, match="int8, int16 or bf16"):
        _native.linear(packed(stored("q4_0", 16, 32)), activations(1, 32), isa, arithmetic="fp8")


def test_no_rows(isa):
    y = linear(packed(stored("q4_0", 20, 64)), np.empty((0, 64), np.float32), isa)
    assert y.shape == (0, 20)
