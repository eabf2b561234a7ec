"""Linear kernels of every ISA that this machine has: against the definition, and bit for bit each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.kernels import _native
from temper.kernels.stored import BLOCKS, StoredTensor
from temper.kernels.weights import GROUP, dequantize, linear_reference, quantize_activations
from tests.kernels.stored_samples import FORMATS, stored

ISAS = ("scalar", "avx2", "avx512", "amx")
HERE = _native.kernel_sets()


@pytest.fixture(params=ISAS)
def isa(request):
    if request.param not in HERE:
        pytest.skip(f"this machine has no {request.param}")
    return request.param


DIGITS = {"int8": 1, "int16": 2}


@pytest.fixture(params=DIGITS)
def arithmetic(request):
    return request.param


def packed(tensor):
    return _native.PackedWeight(tensor.format, tensor.data, *tensor.shape)


def activations(rows, k, seed=0):
    rng = np.random.default_rng(seed)
    # Rows of different size, and outliers as real activations have them.
    x = rng.standard_normal((rows, k)) * rng.lognormal(0, 2, (rows, 1))
    return (x * np.where(rng.random((rows, k)) < 0.01, 30, 1)).astype(np.float32)


def same_bits(left, right):
    return np.array_equal(left.view(np.uint32), right.view(np.uint32))


def assert_near(y, x, tensor, arithmetic="int8"):
    """Against the definition, relative to the size of the terms that were added."""
    expected = linear_reference(x, tensor, DIGITS[arithmetic])
    size = np.abs(x) @ np.abs(dequantize(tensor)).T + 1e-30
    assert np.max(np.abs(y - expected) / size) < 1e-6


shapes = st.fixed_dictionaries(
    {
        "n": st.integers(1, 100),
        "units": st.integers(1, 40),
        "rows": st.one_of(st.integers(1, 16), st.integers(17, 300)),
        "seed": st.integers(0, 10_000),
    }
)


def width(fmt, units):
    block_size, _ = BLOCKS[fmt]
    return units * 13 if block_size == 1 else (units % (5 if block_size == 256 else 40) + 1) * block_size


@pytest.mark.parametrize("fmt", FORMATS)
@settings(max_examples=20, deadline=None)
@given(shape=shapes)
def test_every_isa_gives_the_definition_and_the_same_bits(fmt, shape):
    k = width(fmt, shape["units"])
    tensor = stored(fmt, shape["n"], k, shape["seed"])
    x = activations(shape["rows"], k, shape["seed"])
    weight = packed(tensor)
    sample = np.random.default_rng(0).permutation(shape["rows"])[:6]
    for arithmetic in DIGITS:
        first, *others = (_native.linear(weight, x, name, arithmetic=arithmetic) for name in HERE)
        assert first.shape == (shape["rows"], shape["n"])
        assert_near(first[sample], x[sample], tensor, arithmetic)
        for other in others:
            assert same_bits(first, other)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_row_depends_neither_on_its_company_nor_on_threads(fmt, isa, arithmetic):
    # More than one chunk of the widest kernel, panels not a multiple of anything.
    k = 1280
    weight = packed(stored(fmt, 5 * 16 + 3, k))
    x = activations(40, k)

    def product(weight, x, threads=1):
        return _native.linear(weight, x, isa, threads, arithmetic)

    alone = np.concatenate([product(weight, x[r : r + 1]) for r in range(len(x))])
    for rows in (1, 2, 3, 4, 5, 6, 11, 12, 13, 24, 25, 40):
        for threads in (1, 2, 3, 7):
            assert same_bits(product(weight, x[:rows], threads), alone[:rows])
    shifted = product(weight, x[7:])
    assert same_bits(shifted, alone[7:])


def test_more_threads_than_panels(isa):
    tensor = stored("q4_1", 16, 64)
    x = activations(3, 64)
    assert same_bits(_native.linear(packed(tensor), x, isa, 8), _native.linear(packed(tensor), x, isa))


@pytest.mark.parametrize("fmt", [f for f in FORMATS if BLOCKS[f][0] > 1])
def test_the_largest_integers_stay_exact(fmt, isa, arithmetic):
    """All codes at their largest and all activations at ±127 or ±32767: where sums would overflow first."""
    tensor = stored(fmt, 16, 512)
    blocks = tensor.data.reshape(-1, BLOCKS[fmt][1])
    for fill in (0xFF, 0x80, 0x7F, 0x00):
        codes = blocks.copy()
        if fmt == "q6_k":
            codes[:, :192] = fill
        else:
            codes[:, 16 if fmt.endswith("_k") else 2 :] = fill
            if fmt.endswith("_1"):
                codes[:, 2:4] = blocks[:, 2:4]
        filled = StoredTensor("w", tensor.format, tensor.shape, codes.reshape(-1))
        for x in (np.ones((5, 512), np.float32), -np.ones((5, 512), np.float32)):
            y = _native.linear(packed(filled), x, isa, arithmetic=arithmetic)
            assert_near(y, x, filled, arithmetic)


def test_exact_where_activations_are_exact(isa):
    """Activations on their own grid lose nothing: the product is that of the dequantized weights."""
    tensor = stored("q8_0", 48, 320)
    rng = np.random.default_rng(1)
    x = rng.integers(-127, 128, (9, 320)).astype(np.float32)
    x[:, ::GROUP] = 127
    y = _native.linear(packed(tensor), x, isa)
    np.testing.assert_allclose(y, x @ dequantize(tensor).T.astype(np.float64), rtol=1e-4, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), k=st.integers(1, 200), seed=st.integers(0, 10_000), power=st.integers(-140, 120))
def test_activations_are_quantized_as_defined(rows, k, seed, power):
    x = np.ldexp(np.random.default_rng(seed).standard_normal((rows, k)), power).astype(np.float32)
    expected = quantize_activations(x)
    for name in HERE:
        codes, scales, offsets, sums = _native.quantize_activations(x, name)
        np.testing.assert_array_equal(codes, expected.codes.reshape(rows, -1))
        assert same_bits(scales, expected.scales)
        assert same_bits(offsets, expected.offsets)
        np.testing.assert_array_equal(sums, expected.codes.reshape(rows, -1, 2, 16).sum(axis=-1, dtype=np.int32))


@settings(max_examples=40, deadline=None)
@given(k=st.integers(1, 200), seed=st.integers(0, 10_000), power=st.integers(-60, 100))
def test_sixteen_bits_of_activations_lose_half_a_step(k, seed, power):
    x = np.ldexp(np.random.default_rng(seed).standard_normal((1, k)), power).astype(np.float32)
    one, two = (quantize_activations(x, digits) for digits in (1, 2))
    assert np.abs(two.codes.astype(int)).max() <= 32767
    lost = np.abs((two.scales[..., None] * two.codes).reshape(1, -1)[:, :k] - x)
    assert np.all(lost <= two.scales.repeat(GROUP, 1)[:, :k] * 0.51)
    np.testing.assert_allclose(two.scales * 32767, one.scales * 127, rtol=1e-6)


def test_activations_round_half_to_even(isa):
    x = np.zeros((1, GROUP), np.float32)
    x[0, :8] = [127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, -127]
    codes, scales, _, _ = _native.quantize_activations(x, isa)
    assert scales[0, 0] == 1
    assert codes[0, :8].tolist() == [127, 0, 2, 2, 0, -2, -2, -127]


def test_no_rows(isa, arithmetic):
    y = _native.linear(packed(stored("q4_0", 20, 64)), np.empty((0, 64), np.float32), isa, arithmetic=arithmetic)
    assert y.shape == (0, 20)


def test_bad_calls_name_the_rule(isa):
    weight = packed(stored("q4_0", 20, 64))
    with pytest.raises(ValueError, match="65 columns, the weight takes 64"):
        _native.linear(weight, np.zeros((1, 65), np.float32), isa)
    with pytest.raises(ValueError, match="threads"):
        _native.linear(weight, np.zeros((1, 64), np.float32), isa, 0)
    with pytest.raises(ValueError, match="'sse9'"):
        _native.linear(weight, np.zeros((1, 64), np.float32), "sse9")
    with pytest.raises(ValueError, match="share K"):
        linear_reference(np.zeros((1, 65), np.float32), stored("q4_0", 20, 64))


def test_every_machine_has_the_scalar_set():
    assert "scalar" in HERE
