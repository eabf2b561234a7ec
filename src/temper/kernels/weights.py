"""What weight formats mean, how a linear layer computes with them, and how they are converted.

This is the definition, in numpy, of what `csrc/pack.cpp` and `csrc/kernels/*/linear.cpp` do fast.
It knows formats and arithmetic; it does not know files, models or packed layouts.

Every quantized format is small unsigned codes in groups along K, and is read as

    value = (code - zero point) * scale + minimum

with one float32 scale (and, in some formats, minimum) per group of 32 inputs, of 16 for q6_k.

A linear layer with quantized weights first rounds its activations to int8 in groups of 32, so that
the products inside a group are exact integers; the groups are then added up one after the other.
The sum of an output depends on nothing but its row and its weights: not on the number of rows, on
threads or on the instruction set. With float weights there are no groups: inputs are added one
after the other.

Or activations and weights are rounded to bf16 (`linear_bf16_reference`): another arithmetic, with
the same promise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from temper.kernels.stored import BLOCKS, Format, StoredTensor

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Bytes = NDArray[np.uint8]

GROUP: Final = 32
"""Inputs that share one activation scale."""

PAIRS: Final = (0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15)
"""Pairs of neighbouring inputs of a group in the order in which products in bf16 add them."""

Precision = Literal["as-stored", "int4", "int8", "bf16"]

TARGETS: Final[dict[Precision, Format]] = {"int4": "q4_1", "int8": "q8_0", "bf16": "bf16"}
"""The format that `convert` makes for each precision."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """A quantized matrix [N, K] taken apart: G groups of S inputs per row."""

    codes: Int32
    """[N, G, S] with the zero point already taken off."""
    scales: Float32
    """[N, G]"""
    minima: Float32 | None
    """[N, G], or None where the format has none."""


@dataclass(frozen=True, slots=True)
class QuantizedRows:
    """Activations [R, K] as linear layers read them; K padded with zeros to G groups of 32."""

    codes: NDArray[np.int8] | NDArray[np.int16]
    """[R, G, 32] within ±127, or ±32767."""
    scales: Float32
    """[R, G]"""
    offsets: Float32
    """[R, G] scale · float32(sum of codes): what a weight's minimum is multiplied by."""


def dequantize(tensor: StoredTensor) -> Float32:
    """The values of a tensor of any format, in its shape.

    Raises:
        ValueError: the data does not have the size that format and shape ask for.
    """
    _check_size(tensor)
    if tensor.format == "f32":
        values = tensor.data.view(np.float32).copy()
    elif tensor.format == "f16":
        values = tensor.data.view(np.float16).astype(np.float32)
    elif tensor.format == "bf16":
        values = _from_bf16(tensor.data.view(np.uint16))
    else:
        grouped = grouped_weights(tensor)
        values = grouped.codes * grouped.scales[..., None]
        if grouped.minima is not None:
            values += grouped.minima[..., None]
    return values.astype(np.float32, copy=False).reshape(tensor.shape)


def grouped_weights(tensor: StoredTensor) -> Grouped:
    """Codes, scales and minima of a quantized tensor; all dimensions but the last count as rows."""
    _check_size(tensor)
    _, block_bytes = BLOCKS[tensor.format]
    blocks = tensor.data.reshape(-1, block_bytes)
    codes, scales, minima = _READERS[tensor.format](blocks)
    group = codes.shape[-1]
    shape = (-1, tensor.shape[-1] // group)
    return Grouped(
        codes.astype(np.int32).reshape(*shape, group),
        scales.reshape(shape),
        None if minima is None else minima.reshape(shape),
    )


def quantize_activations(x: Float32, digits: int = 1) -> QuantizedRows:
    """Round rows [R, K] of finite numbers to int8, in groups of 32; to int16 with two digits.

    scale = max|x| / 127 (32767), or 0 where the maximum is below 2⁻¹⁰⁰; codes = x · (1 / scale) rounded half
    to even. All in float32.
    """
    top_code, kind = (127, np.int8) if digits == 1 else (32767, np.int16)
    rows, k = x.shape
    num_groups = -(-k // GROUP)
    padded = np.zeros((rows, num_groups * GROUP), np.float32)
    padded[:, :k] = x
    groups = padded.reshape(rows, num_groups, GROUP)
    top = np.abs(groups).max(axis=-1)
    scales = np.where(top < 2.0**-100, np.float32(0), top / np.float32(top_code))
    with np.errstate(divide="ignore"):
        inverse = np.where(scales == 0, np.float32(0), np.float32(1) / scales)
    codes = np.rint(groups * inverse[..., None]).astype(kind)
    offsets = scales * codes.sum(axis=-1, dtype=np.int32).astype(np.float32)
    return QuantizedRows(codes, scales, offsets)


def linear_reference(x: Float32, weight: StoredTensor, digits: int = 1) -> Float32:
    """x [R, K] times weight [N, K]: float32 [R, N], in the arithmetic that every kernel follows.

    Activations that meet quantized weights are rounded to int8, with two digits to int16. Dot products of a group are
    exact, then rounded to float32. Float weights need no digits.

    Kernels use fused multiply-add, which rounds once; numpy has none, so `_fma` may in rare cases
    differ from theirs by the last bit.

    Raises:
        ValueError: the widths differ, or the weight is malformed.
    """
    if len(weight.shape) != 2 or x.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"x [R, K] and weight [N, K] must share K; got {x.shape} and {weight.shape}")
    acc = np.zeros((x.shape[0], weight.shape[0]), np.float32)
    if weight.format in ("f32", "f16", "bf16"):
        values = dequantize(weight)
        for i in range(x.shape[1]):
            acc = _fma(values[None, :, i], x[:, i, None], acc)
        return acc
    w = grouped_weights(weight)
    a = quantize_activations(x, digits)
    size = w.codes.shape[-1]
    per_scale = GROUP // size
    a_codes = a.codes.reshape(x.shape[0], -1, size).astype(np.int32)
    for g in range(w.codes.shape[1]):
        a_scale = a.scales[:, g // per_scale, None]
        dots = a_codes[:, g] @ w.codes[:, g].T  # exact
        acc = _fma(dots.astype(np.float32), w.scales[None, :, g] * a_scale, acc)
        if w.minima is not None:
            acc = _fma(w.minima[None, :, g], a.offsets[:, g, None], acc)
    return acc


def linear_bf16_reference(x: Float32, weight: StoredTensor) -> Float32:
    """x [R, K] times weight [N, K] in bf16 with sums in float32: [R, N], as AMX multiplies.

    Activations are rounded half to even, weights half away from zero. In each group of 32 inputs the even and
    the odd ones are summed apart by fused multiply-adds, from 0, in the order of `PAIRS`; both sums are added,
    then to the output.

    Raises:
        ValueError: the widths differ, or the weight is malformed.
    """
    if len(weight.shape) != 2 or x.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"x [R, K] and weight [N, K] must share K; got {x.shape} and {weight.shape}")
    a = _from_bf16(_to_bf16(np.ascontiguousarray(x, np.float32)))
    w = dequantize(weight)
    if weight.format != "bf16":
        w = ((w.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)
    acc = np.zeros((x.shape[0], weight.shape[0]), np.float32)
    for begin in range(0, x.shape[1], GROUP):
        sums = [np.zeros_like(acc), np.zeros_like(acc)]
        for i in (begin + 2 * pair + odd for pair in PAIRS for odd in (0, 1)):
            if i < x.shape[1]:
                sums[i % 2] = _fma(w[None, :, i], a[:, i, None], sums[i % 2])
        acc = acc + (sums[0] + sums[1])
    return acc


def convert(tensor: StoredTensor, precision: Precision) -> StoredTensor:
    """The tensor in the grid of `precision`: int4 as q4_1, int8 as q8_0, bf16.

    A tensor that is already in that format, or any with `as-stored`, is returned as it is. Each
    group of 32 gets its own scale, rounded to float16 before the codes are chosen.

    Raises:
        ValueError: K is no multiple of 32 and the precision has groups, or the tensor is malformed.
    """
    if precision == "as-stored" or tensor.format == TARGETS[precision]:
        return tensor
    target = TARGETS[precision]
    block_size, _ = BLOCKS[target]
    if tensor.shape[-1] % block_size:
        raise ValueError(
            f"{target} holds blocks of {block_size} inputs; '{tensor.name}' has K = {tensor.shape[-1]}, "
            "which is no multiple of that"
        )
    values = dequantize(tensor)
    data = _to_bf16(values) if target == "bf16" else _WRITERS[target](values.reshape(-1, GROUP))
    return StoredTensor(tensor.name, target, tensor.shape, np.ascontiguousarray(data).view(np.uint8).reshape(-1))


def _fma(a: Float32, b: Float32, c: Float32) -> Float32:
    """a · b + c: the product is exact in float64, the sum is rounded there and then to float32."""
    product = a.astype(np.float64) * b.astype(np.float64)
    total: Float32 = (product + c).astype(np.float32)
    return total


def _check_size(tensor: StoredTensor) -> None:
    block_size, block_bytes = BLOCKS[tensor.format]
    if not tensor.shape or min(tensor.shape) < 1:
        raise ValueError(f"'{tensor.name}' needs at least one element in each dimension; its shape is {tensor.shape}")
    if tensor.shape[-1] % block_size:
        raise ValueError(
            f"{tensor.format} holds blocks of {block_size} inputs; '{tensor.name}' has K = {tensor.shape[-1]}, "
            "which is no multiple of that"
        )
    size = 1
    for extent in tensor.shape:
        size *= int(extent)
    needed = size // block_size * block_bytes
    if tensor.data.size != needed:
        raise ValueError(
            f"{tensor.format} {list(tensor.shape)} takes {needed} bytes; '{tensor.name}' has {tensor.data.size}"
        )


# --- reading blocks -------------------------------------------------------------------------------
# Each reader takes [blocks, bytes] and gives codes [blocks, groups, 16 or 32] with the zero point
# taken off, scales [blocks, groups] and minima [blocks, groups] or None.

Read = tuple[Int32, Float32, Float32 | None]


def _half(blocks: Bytes, at: int) -> Float32:
    """The float16 at byte `at` of each block, as float32 [blocks, 1]."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Int32:
    """[..., 16] bytes to [..., 32]: the low halves are the first 16 codes, the high halves the others."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1).astype(np.int32)


def _fifth_bits(packed: Bytes) -> Int32:
    """[blocks, 4] bytes to [blocks, 32]: bit i is bit 4 of code i."""
    return np.unpackbits(packed, axis=-1, bitorder="little").astype(np.int32) << 4


def _read_q8_0(blocks: Bytes) -> Read:
    return np.ascontiguousarray(blocks[:, 2:]).view(np.int8)[:, None].astype(np.int32), _half(blocks, 0), None


def _read_q4_0(blocks: Bytes) -> Read:
    return _nibbles(blocks[:, 2:])[:, None] - 8, _half(blocks, 0), None


def _read_q4_1(blocks: Bytes) -> Read:
    return _nibbles(blocks[:, 4:])[:, None], _half(blocks, 0), _half(blocks, 2)


def _read_q5_0(blocks: Bytes) -> Read:
    codes = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    return codes[:, None] - 16, _half(blocks, 0), None


def _read_q5_1(blocks: Bytes) -> Read:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    return codes[:, None], _half(blocks, 0), _half(blocks, 2)


def _six_bit_scales(packed: Bytes) -> tuple[Float32, Float32]:
    """The 8 scales and 8 minima of 6 bits that Q4_K and Q5_K keep in 12 bytes."""
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([low & 63, high & 15 | low >> 6 << 4], axis=-1)
    minima = np.concatenate([middle & 63, high >> 4 | middle >> 6 << 4], axis=-1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _read_q4_k(blocks: Bytes) -> Read:
    scales, minima = _six_bit_scales(blocks[:, 4:16])
    # 4 runs of 32 bytes, each holding one group in its low and the next in its high halves.
    runs = blocks[:, 16:].reshape(-1, 4, 1, 32)
    codes = np.concatenate([runs & 15, runs >> 4], axis=2).reshape(-1, 8, 32)
    return codes.astype(np.int32), _half(blocks, 0) * scales, -(_half(blocks, 2) * minima)


def _read_q5_k(blocks: Bytes) -> Read:
    low, scales, minima = _read_q4_k(np.concatenate([blocks[:, :16], blocks[:, 48:]], axis=-1))
    # Bit g of byte i is bit 4 of code i in group g.
    high = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return low | high.astype(np.int32) << 4, scales, minima


def _read_q6_k(blocks: Bytes) -> Read:
    # Two halves of 128 inputs, each 64 bytes of low halves and 32 bytes of upper bit pairs.
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3
    codes = (low | high << 4).astype(np.int32).reshape(-1, 16, 16) - 32
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    return codes, _half(blocks, 208) * scales, None


_READERS: Final[dict[str, Callable[[Bytes], Read]]] = {
    "q8_0": _read_q8_0,
    "q4_0": _read_q4_0,
    "q4_1": _read_q4_1,
    "q5_0": _read_q5_0,
    "q5_1": _read_q5_1,
    "q4_k": _read_q4_k,
    "q5_k": _read_q5_k,
    "q6_k": _read_q6_k,
}


# --- writing blocks -------------------------------------------------------------------------------


def _to_bf16(values: Float32) -> NDArray[np.uint16]:
    """Rounded half to even."""
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, rounded).astype(np.uint16)


def _from_bf16(words: NDArray[np.uint16]) -> Float32:
    return (words.astype(np.uint32) << 16).view(np.float32)


def _inverse(scale: Float32) -> Float32:
    with np.errstate(divide="ignore"):
        inverse: Float32 = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    return inverse


def _write_q8_0(groups: Float32) -> Bytes:
    half = (np.abs(groups).max(axis=-1, keepdims=True) / np.float32(127)).astype(np.float16)
    codes = np.rint(groups * _inverse(half.astype(np.float32))).clip(-127, 127).astype(np.int8)
    return np.concatenate([half.view(np.uint8), codes.view(np.uint8)], axis=-1)


def _write_q4_1(groups: Float32) -> Bytes:
    low = groups.min(axis=-1, keepdims=True)
    half = ((groups.max(axis=-1, keepdims=True) - low) / np.float32(15)).astype(np.float16)
    half_min = low.astype(np.float16)
    spread = groups - half_min.astype(np.float32)
    codes = np.rint(spread * _inverse(half.astype(np.float32))).clip(0, 15).astype(np.uint8)
    packed = codes[:, :16] | codes[:, 16:] << 4
    return np.concatenate([half.view(np.uint8), half_min.view(np.uint8), packed], axis=-1)


_WRITERS: Final[dict[str, Callable[[Float32], Bytes]]] = {"q8_0": _write_q8_0, "q4_1": _write_q4_1}
