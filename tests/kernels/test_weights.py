"""Formats against the `gguf` package, packing against the definition, conversions against both."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.kernels import _native
from temper.kernels.stored import BLOCKS, StoredTensor
from temper.kernels.weights import TARGETS, convert, dequantize
from tests.kernels.stored_samples import FORMATS, stored

UNSIGNED = {"f32": np.uint32, "f16": np.uint16}


def packed(tensor):
    return _native.PackedWeight(tensor.format, tensor.data, *tensor.shape)


def assert_same_bits(left, right):
    assert left.dtype == right.dtype == np.float32
    np.testing.assert_array_equal(left.view(np.uint32), right.view(np.uint32))


def with_every_half(fmt):
    """One block for each float16 there is: subnormals, zeros of both signs, the largest."""
    halves = np.arange(1 << 16, dtype=np.uint16)
    halves = halves[np.isfinite(halves.view(np.float16))]
    tensor = stored(fmt, len(halves), BLOCKS[fmt][0])
    at = 208 if fmt == "q6_k" else 0
    blocks = tensor.data.reshape(len(halves), -1)
    blocks[:, at : at + 2] = halves.view(np.uint8).reshape(-1, 2)
    return tensor


@pytest.mark.parametrize("fmt", FORMATS)
def test_dequantize_is_what_the_gguf_package_reads(fmt):
    tensor = stored(fmt, 37, 768, seed=3)
    data = tensor.data.reshape(37, -1)
    if fmt in ("f32", "f16"):
        data = data.view(np.dtype(fmt.replace("f", "float")))
    expected = gguf.quants.dequantize(data, GGMLQuantizationType[fmt.upper()])
    assert_same_bits(dequantize(tensor), np.asarray(expected, np.float32).reshape(37, 768))


def test_block_sizes_are_those_of_the_gguf_package():
    for fmt, sizes in BLOCKS.items():
        if fmt == "u8":  # of safetensors alone
            continue
        assert sizes == gguf.GGML_QUANT_SIZES[GGMLQuantizationType[fmt.upper()]]


@pytest.mark.parametrize("fmt", FORMATS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_packing_loses_nothing(fmt, data):
    block_size, _ = BLOCKS[fmt]
    n = data.draw(st.integers(1, 70), "n")
    k = data.draw(st.integers(1, 300 if block_size == 1 else 1024 // block_size), "blocks") * block_size
    tensor = stored(fmt, n, k, seed=data.draw(st.integers(0, 1000), "seed"))
    weight = packed(tensor)
    assert (weight.n, weight.k) == (n, k)
    ids = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=20), "ids"), np.int32)
    assert_same_bits(weight.lookup(ids), dequantize(tensor)[ids])


@pytest.mark.parametrize("fmt", ["q8_0", "q4_1", "q6_k"])
def test_every_scale_survives(fmt):
    tensor = with_every_half(fmt)
    ids = np.arange(tensor.shape[0], dtype=np.int32)
    assert_same_bits(packed(tensor).lookup(ids), dequantize(tensor))


@pytest.mark.parametrize("fmt", FORMATS)
def test_packed_size_is_that_of_the_file(fmt):
    tensor = stored(fmt, 64, 2048)
    assert packed(tensor).num_bytes <= tensor.num_bytes * 1.03  # 6-bit scales take bytes


@pytest.mark.parametrize("id_", [-1, 40, 2**31 - 1])
def test_lookup_refuses_rows_that_are_not_there(id_):
    with pytest.raises(IndexError, match=f"{id_} of a table with 40 rows"):
        packed(stored("q8_0", 40, 64)).lookup(np.array([0, id_], np.int32))


@pytest.mark.parametrize("fmt", FORMATS)
def test_wrong_sizes_are_refused_with_rule_and_value(fmt):
    good = stored(fmt, 4, 512)
    for data in (good.data[:-1], good.data[:0], np.tile(good.data, 2)):
        with pytest.raises(ValueError, match=str(data.size)):
            dequantize(StoredTensor("w", fmt, (4, 512), data))
        with pytest.raises(ValueError, match=str(data.size)):
            _native.PackedWeight(fmt, data, 4, 512)
    for n, k in ((0, 512), (-4, 512), (4, 0), (4, -512), (1 << 40, 512), (1 << 62, 512), (4, 1 << 62)):
        with pytest.raises(ValueError, match=r"at least 1|blocks of"):
            _native.PackedWeight(fmt, good.data, n, k)
    if BLOCKS[fmt][0] > 1:
        with pytest.raises(ValueError, match=f"blocks of {BLOCKS[fmt][0]}"):
            _native.PackedWeight(fmt, good.data, 4, 513)
        with pytest.raises(ValueError, match=f"blocks of {BLOCKS[fmt][0]}"):
            dequantize(StoredTensor("w", fmt, (4, 513), good.data))


def test_unknown_formats_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'iq2_xs' is no weight format; known are f32, f16"):
        _native.PackedWeight("iq2_xs", np.zeros(64, np.uint8), 1, 32)


@pytest.mark.parametrize("precision", ["int4", "int8", "bf16"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_native_conversion_is_the_definition(fmt, precision):
    tensor = stored(fmt, 19, 512, seed=5)
    target = TARGETS[precision]
    expected = convert(tensor, precision)
    assert expected.format == target
    if fmt == target:
        assert expected is tensor
        return
    assert expected.shape == tensor.shape
    data = _native.convert_weights(fmt, tensor.data, *tensor.shape, target)
    np.testing.assert_array_equal(data, expected.data)


@pytest.mark.parametrize(("precision", "bound"), [("int8", 0.006), ("int4", 0.09), ("bf16", 0.003)])
def test_conversion_stays_near_the_values(precision, bound):
    tensor = stored("f32", 64, 256)
    values = dequantize(tensor)
    error = dequantize(convert(tensor, precision)) - values
    assert np.sqrt(np.mean(error**2)) < bound * np.sqrt(np.mean(values**2))


@pytest.mark.parametrize("precision", ["int4", "int8", "bf16"])
def test_constant_and_zero_groups_convert(precision):
    values = np.concatenate([np.zeros(32), np.full(32, 0.5), np.full(32, -2.0)]).astype(np.float32)[None]
    tensor = StoredTensor("w", "f32", (1, 96), values.view(np.uint8).reshape(-1))
    np.testing.assert_allclose(dequantize(convert(tensor, precision)), values, rtol=1e-3)
    np.testing.assert_array_equal(
        _native.convert_weights("f32", tensor.data, 1, 96, TARGETS[precision]), convert(tensor, precision).data
    )


def test_conversion_refuses_widths_that_hold_no_blocks():
    tensor = stored("f16", 2, 33)
    assert convert(tensor, "as-stored") is tensor
    assert convert(tensor, "bf16").format == "bf16"
    for precision in ("int4", "int8"):
        with pytest.raises(ValueError, match="K = 33"):
            convert(tensor, precision)
        with pytest.raises(ValueError, match="k = 33"):
            _native.convert_weights("f16", tensor.data, 2, 33, TARGETS[precision])
    with pytest.raises(ValueError, match="not to q6_k"):
        _native.convert_weights("f16", tensor.data, 2, 33, "q6_k")
