"""Quantized matrices as compressed-tensors packs them, so that vLLM, transformers and our own engines read them.

Format: github.com/vllm-project/compressed-tensors, `pack-quantized`, `int-quantized` and, with both in one
model, `mixed-precision`.
`models/weights/compressed_tensors` is the reader.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from temper.refine.quantize.grid import Grid, Quantized

Tensors = dict[str, NDArray[Any]]

_PACKED: Final = "pack-quantized"
_INT8: Final = "int-quantized"
_MIXED: Final = "mixed-precision"
_DYNAMIC_INT8: Final = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
"""Engines round each token's activations as they come, to int8 with one scale."""


def packed(layer: str, matrix: Quantized) -> Tensors:
    """The tensors that stand for the weight of `layer`, codes packed into 32-bit words."""
    grid = matrix.grid
    found: Tensors = {
        f"{layer}.weight_packed": _words(matrix.codes, grid.bits),
        f"{layer}.weight_scale": matrix.scales.astype(np.float16),
        f"{layer}.weight_shape": np.array(matrix.codes.shape, np.int64),
    }
    if not grid.symmetric:
        zeros = _words(np.ascontiguousarray(matrix.zeros.T), grid.bits)
        found[f"{layer}.weight_zero_point"] = np.ascontiguousarray(zeros.T)
    return found


def whole_bytes(layer: str, matrix: Quantized) -> Tensors:
    """The same of a symmetric 8-bit matrix as plain int8: the form that goes with activations of 8 bits."""
    codes = (matrix.codes.astype(np.int16) - matrix.grid.middle).astype(np.int8)
    return {f"{layer}.weight": codes, f"{layer}.weight_scale": matrix.scales.astype(np.float16)}


def quantization_config(
    grids: Mapping[str, Grid], ignored: Sequence[str], *, dynamic_int8: Collection[str] = ()
) -> dict[str, Any]:
    """What config.json says of it; `ignored` are the linear layers that stay as they were.

    `dynamic_int8` are those of the layers in `grids` that are stored by `whole_bytes`. One group that holds for all
    linear layers where they have one scheme, else a group a scheme with its layers by name.
    """
    layers_of: dict[tuple[Grid, bool], list[str]] = {}
    for layer, grid in grids.items():
        layers_of.setdefault((grid, layer in dynamic_int8), []).append(layer)
    formats = {_INT8 if int8 else _PACKED for _, int8 in layers_of}
    groups = {
        f"group_{number}": {
            "targets": ["Linear"] if len(layers_of) == 1 else layers,
            "weights": _weights(grid),
            "input_activations": dict(_DYNAMIC_INT8) if int8 else None,
            "output_activations": None,
            # Older readers know no format of a group, so it is named only where groups differ in it.
            **({"format": _INT8 if int8 else _PACKED} if len(formats) > 1 else {}),
        }
        for number, ((grid, int8), layers) in enumerate(layers_of.items())
    }
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else _MIXED,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": list(ignored),
        "kv_cache_scheme": None,
    }


def _weights(grid: Grid) -> dict[str, Any]:
    return {
        "num_bits": grid.bits,
        "type": "int",
        "symmetric": grid.symmetric,
        "strategy": "group" if grid.group else "channel",
        "group_size": grid.group or None,
        "dynamic": False,
        "observer": "minmax",
    }


def _words(codes: NDArray[np.uint8], bits: int) -> NDArray[np.int32]:
    """Codes [R, C] in 32-bit words [R, ceil(C / (32 // bits))], the first code in the lowest bits."""
    per_word = 32 // bits
    rows, columns = codes.shape
    padded = np.zeros((rows, -(-columns // per_word) * per_word), np.uint32)
    padded[:, :columns] = codes
    shifts = np.arange(per_word, dtype=np.uint32) * np.uint32(bits)
    words = (padded.reshape(rows, -1, per_word) << shifts).sum(axis=-1, dtype=np.uint32)
    return np.ascontiguousarray(words).view(np.int32)
