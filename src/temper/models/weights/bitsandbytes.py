"""Reads weights that bitsandbytes stored in NF4 or FP4: sixteen levels, blocks with one absolute maximum.

No kernel of ours computes on uneven levels, so they become what they stand for, in bfloat16, which is what
bitsandbytes itself makes of them before each product. A profile's `precision` may then ask for int8 or int4.

Format: github.com/bitsandbytes-foundation/bitsandbytes, `QuantState.as_dict(packed=True)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any, Final, NoReturn

import numpy as np

from temper.errors import CheckpointError
from temper.kernels.stored import StoredTensor

STATE: Final = "quant_state.bitsandbytes__nf4"
_STATES: Final = (STATE, "quant_state.bitsandbytes__fp4")
_PARTS: Final = (".absmax", ".quant_map", *(f".{state}" for state in _STATES))
NESTED: Final = (".nested_absmax", ".nested_quant_map")


def check_nf4(quantization: Mapping[str, Any]) -> None:
    """Refuse what is not stored in 4 bits.

    Raises:
        CheckpointError: it is not.
    """
    if not quantization.get("load_in_4bit"):
        raise CheckpointError(
            "config.json: 'quantization_config.load_in_4bit' must be true where quant_method is 'bitsandbytes', got "
            f"{str(quantization.get('load_in_4bit'))[:40]!r}",
            hint="weights that bitsandbytes stored in 8 bits are not supported: quantize the parent again",
        )


def unpack(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors with every 4-bit weight in bfloat16 under its plain name.

    Raises:
        CheckpointError: a part is missing or does not fit the others.
    """
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith((*_PARTS, *NESTED))}
    for name in tensors:
        for state in _STATES:
            if name.endswith(f".{state}"):
                weight = name.removesuffix(f".{state}")
                found[weight] = _values(weight, state, tensors)
    return found


def _values(name: str, state: str, tensors: Mapping[str, StoredTensor]) -> StoredTensor:
    described = _state(name, tensors[f"{name}.{state}"])
    shape, block = described["shape"], described["blocksize"]
    size = prod(shape)
    if f"{name}.nested_absmax" in tensors or "nested_blocksize" in described:
        _refuse(name, "maxima in float32", "maxima that are quantized too (double quantization)")
    packed = _part(name, name, tensors, "u8")
    maxima = _part(name, f"{name}.absmax", tensors, "f32").view(np.float32)
    levels = _part(name, f"{name}.quant_map", tensors, "f32").view(np.float32)
    if packed.size != -(-size // 2) or maxima.size != -(-size // block) or levels.size != 16:
        _refuse(name, f"{size} codes, {-(-size // block)} maxima and 16 levels",
                f"{packed.size * 2} codes, {maxima.size} maxima and {levels.size} levels")  # fmt: skip
    codes = np.stack([packed >> 4, packed & 15], axis=-1).reshape(-1)[:size]
    values = levels[codes] * np.repeat(maxima, block)[:size]
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    halves = ((bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16).astype(np.uint16)  # to the nearest, ties to even
    return StoredTensor(name, "bf16", shape, halves.view(np.uint8))


def _state(name: str, tensor: StoredTensor) -> dict[str, Any]:
    """Shape and block size, checked."""
    try:
        raw = json.loads(tensor.data.tobytes())
        shape, block = tuple(raw["shape"]), raw["blocksize"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        _refuse(name, "a description in JSON", str(error)[:80])
    numbers = [*shape, block]
    if len(shape) != 2 or not all(type(number) is int and 1 <= number < 1 << 40 for number in numbers):
        _refuse(name, "two dimensions and a block size", str(numbers)[:80])
    return {**raw, "shape": shape, "blocksize": block}


def _part(weight: str, name: str, tensors: Mapping[str, StoredTensor], format_: str) -> Any:
    if name not in tensors:
        raise CheckpointError(f"tensor '{name}' is missing", hint="the file is incomplete: fetch it again")
    if tensors[name].format != format_:
        _refuse(weight, f"'{name}' of type {format_}", tensors[name].format)
    return tensors[name].data


def _refuse(name: str, rule: str, found: object) -> NoReturn:
    raise CheckpointError(
        f"the 4-bit weight '{name}' must have {rule}, found {found}",
        hint="quantize its parent again with `temper refine quantize --method nf4`",
    )
