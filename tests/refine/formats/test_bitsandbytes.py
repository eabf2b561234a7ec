"""NF4 as bitsandbytes lays it out: written and read back, and refused where it does not fit together."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from temper.errors import CheckpointError
from temper.kernels.weights import dequantize
from temper.models.weights.bitsandbytes import STATE, check_nf4, unpack
from temper.models.weights.safetensors import open_file
from temper.refine.formats.bitsandbytes import packed, quantization_config
from temper.refine.quantize.nf4 import dequantize_nf4, quantize_nf4

WEIGHT = (np.random.default_rng(0).normal(size=(24, 40)) * 0.1).astype(np.float32)


def read(tmp_path, **changes):
    whole = {name.removeprefix("layer.weight"): values for name, values in packed("layer", WEIGHT, 64).items()}
    tensors = {f"layer.weight{part}": values for part, values in {**whole, **changes}.items() if values is not None}
    save_file({"other.weight": np.ones(3, np.float32), **tensors}, tmp_path / "model.safetensors")
    return unpack(open_file(tmp_path / "model.safetensors").tensors)


@pytest.mark.parametrize("block", [32, 64, 512])
def test_what_is_written_is_read_as_bitsandbytes_reads_it(tmp_path, block):
    found = read(tmp_path, **{name[12:]: values for name, values in packed("layer", WEIGHT, block).items()})
    assert set(found) == {"other.weight", "layer.weight"}
    values = dequantize_nf4(*quantize_nf4(WEIGHT, block), WEIGHT.shape, block)
    off = np.abs(dequantize(found["layer.weight"]) - values)
    assert (off <= np.abs(values) * 2.0**-8).all()
    check_nf4(quantization_config(["lm_head"]))


def described(**changes) -> np.ndarray:
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [24, 40], **changes}
    return np.frombuffer(json.dumps(state).encode(), np.uint8)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (".absmax", None, "'layer.weight.absmax' is missing"),
        (".absmax", np.ones(3, np.float32), "960 codes, 15 maxima and 16 levels, found 960 codes, 3 maxima"),
        (".absmax", np.ones(15, np.uint8), "'layer.weight.absmax' of type f32, found u8"),
        (".quant_map", np.ones(4, np.float32), "and 4 levels"),
        (".nested_absmax", np.ones(1, np.float32), "double quantization"),
        (f".{STATE}", np.frombuffer(b"{", np.uint8), "a description in JSON"),
        (f".{STATE}", described(shape=[24]), "two dimensions and a block size"),
        (f".{STATE}", described(shape=[24, -40]), "two dimensions and a block size"),
        (f".{STATE}", described(blocksize=True), "two dimensions and a block size"),
        (f".{STATE}", described(shape=[1 << 30, 1 << 30]), "codes, "),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, part, values, message):
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path, **{part: values})


def test_eight_bits_are_refused():
    with pytest.raises(CheckpointError, match=r"'quantization_config\.load_in_4bit' must be true"):
        check_nf4({"quant_method": "bitsandbytes", "load_in_8bit": True})
