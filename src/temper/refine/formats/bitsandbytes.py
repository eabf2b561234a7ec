"""Matrices in NF4 as bitsandbytes stores them, so that transformers, vLLM and our own engines read them.

Format: github.com/bitsandbytes-foundation/bitsandbytes, `QuantState.as_dict(packed=True)`, maxima in float32 (no double
quantization). `models/weights/bitsandbytes` is the reader.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from temper.models.weights.bitsandbytes import STATE
from temper.refine.quantize.grid import Float32
from temper.refine.quantize.nf4 import LEVELS, quantize_nf4


def packed(layer: str, weight: Float32, block: int) -> dict[str, NDArray[Any]]:
    """The tensors that stand for the weight [N, K] of `layer` in blocks of `block` weights.

    Raises:
        Invalid: a weight is not finite.
    """
    codes, maxima = quantize_nf4(weight, block)
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": list(weight.shape)}
    return {
        f"{layer}.weight": codes[:, None],
        f"{layer}.weight.absmax": maxima,
        f"{layer}.weight.quant_map": LEVELS.copy(),
        f"{layer}.weight.{STATE}": np.frombuffer(json.dumps(state).encode(), np.uint8).copy(),
    }


def quantization_config(ignored: Sequence[str]) -> dict[str, Any]:
    """What config.json says of it; `ignored` are the linear layers that stay as they were."""
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": list(ignored),
    }
