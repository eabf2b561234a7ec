"""What is packed for other engines is read back as the very same numbers by ours."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from temper.errors import CheckpointError
from temper.kernels.weights import dequantize
from temper.models.weights.compressed_tensors import WeightScheme, WeightSchemes, unpack, weight_schemes
from temper.models.weights.safetensors import open_file
from temper.refine.formats.packed import packed, quantization_config, whole_bytes
from temper.refine.quantize.grid import Grid, round_to_nearest

GRIDS = [
    Grid(4, 32, True), Grid(4, 64, True), Grid(4, 128, False), Grid(4, 0, True), Grid(3, 32, False), Grid(3, 64, True),
    Grid(8, 32, True), Grid(8, 0, True),
]  # fmt: skip


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_a_round_trip_changes_no_number(tmp_path, grid):
    weight = (np.random.default_rng(3).normal(size=(40, 256)) * 0.05).astype(np.float32)
    matrix = round_to_nearest(weight, grid)
    save_file(packed("layer", matrix), tmp_path / "model.safetensors")
    schemes = weight_schemes(quantization_config({"layer": grid}, ["lm_head"]))
    found = unpack(open_file(tmp_path / "model.safetensors").tensors, schemes)
    assert list(found) == ["layer.weight"]
    assert found["layer.weight"].format == {8: "q8_0"}.get(grid.bits, "q4_0" if grid.symmetric else "q4_1")
    assert np.array_equal(dequantize(found["layer.weight"]), matrix.values())


def test_layers_of_different_bits_lie_in_one_file(tmp_path):
    rng = np.random.default_rng(4)
    grids = {"a": Grid(4, 32, True), "b": Grid(8, 32, True), "c": Grid(3, 32, True), "d": Grid(4, 32, True)}
    matrices = {
        name: round_to_nearest(rng.normal(size=(8, 64)).astype(np.float32), grid) for name, grid in grids.items()
    }
    save_file(
        {part: values for name, matrix in matrices.items() for part, values in packed(name, matrix).items()},
        tmp_path / "model.safetensors",
    )
    config = quantization_config(grids, ["lm_head"])
    assert [group["targets"] for group in config["config_groups"].values()] == [["a", "d"], ["b"], ["c"]]
    found = unpack(open_file(tmp_path / "model.safetensors").tensors, weight_schemes(config))
    for name, matrix in matrices.items():
        assert np.array_equal(dequantize(found[f"{name}.weight"]), matrix.values())
    del config["config_groups"]["group_1"]
    with pytest.raises(CheckpointError, match="of a scheme for 'b', whose weight is packed"):
        unpack(open_file(tmp_path / "model.safetensors").tensors, weight_schemes(config))
    config["config_groups"]["group_2"]["targets"] = ["re:.*"]
    with pytest.raises(CheckpointError, match="names of layers where there are several schemes"):
        weight_schemes(config)


def test_whole_bytes_say_that_activations_are_rounded_too(tmp_path):
    grid = Grid(8, 0, True)
    matrix = round_to_nearest(np.random.default_rng(5).normal(size=(8, 96)).astype(np.float32), grid)
    save_file(whole_bytes("layer", matrix), tmp_path / "model.safetensors")
    config = quantization_config({"layer": grid}, ["lm_head"], dynamic_int8=["layer"])
    group = config["config_groups"]["group_0"]
    assert (config["format"], group["input_activations"]["dynamic"]) == ("int-quantized", True)
    found = unpack(open_file(tmp_path / "model.safetensors").tensors, weight_schemes(config))
    assert np.array_equal(dequantize(found["layer.weight"]), matrix.values())
    group["input_activations"]["dynamic"] = False
    with pytest.raises(CheckpointError, match="null, or 8-bit integers that are dynamic"):
        weight_schemes(config)


def test_packed_layers_and_whole_bytes_lie_in_one_file(tmp_path):
    rng = np.random.default_rng(6)
    grids = {"a": Grid(4, 32, True), "b": Grid(8, 0, True)}
    matrices = {
        name: round_to_nearest(rng.normal(size=(8, 64)).astype(np.float32), grid) for name, grid in grids.items()
    }
    save_file(packed("a", matrices["a"]) | whole_bytes("b", matrices["b"]), tmp_path / "model.safetensors")
    config = quantization_config(grids, ["lm_head"], dynamic_int8=["b"])
    groups = config["config_groups"]
    assert config["format"] == "mixed-precision"
    assert [group["format"] for group in groups.values()] == ["pack-quantized", "int-quantized"]
    assert [group["input_activations"] is None for group in groups.values()] == [True, False]
    found = unpack(open_file(tmp_path / "model.safetensors").tensors, weight_schemes(config))
    for name, matrix in matrices.items():
        assert np.array_equal(dequantize(found[f"{name}.weight"]), matrix.values())
    del groups["group_0"]["format"]
    with pytest.raises(CheckpointError, match=r"'quantization_config\.format' must be one of pack-quantized"):
        weight_schemes(config)


def test_parts_that_do_not_fit_are_refused(tmp_path):
    matrix = round_to_nearest(np.ones((8, 64), np.float32), Grid(4, 32, True))
    whole = packed("layer", matrix)

    def read(**changes):
        tensors = {name: values for name, values in {**whole, **changes}.items() if values is not None}
        save_file(tensors, tmp_path / "model.safetensors")
        return unpack(open_file(tmp_path / "model.safetensors").tensors, WeightSchemes(WeightScheme(4, True, True), {}))

    for name, values, message in [
        ("weight_packed", None, "'layer.weight_packed' is missing"),
        ("weight_shape", None, "'layer.weight_shape' is missing"),
        ("weight_packed", np.zeros((8, 7), np.int32), "8 × 64 codes, 8 in a word"),
        ("weight_scale", np.ones((8, 3), np.float16), "scales for groups of a multiple of 32"),
        ("weight_scale", np.ones((8,), np.float16), r"scales of shape \[N, G\]"),
        ("weight_scale", np.full((8, 2), 1 / 3, np.float32), "float16 holds exactly"),
        ("weight_g_idx", np.zeros(64, np.int32), "weight_g_idx"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            read(**{f"layer.{name}": values})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_method": "awq"}, r"'quantization_config\.quant_method' must be 'compressed-tensors', got 'awq'"),
        ({"format": "nvfp4-pack-quantized"}, "format' must be one of pack-quantized, int-quantized"),
        ({"config_groups": {}}, "config_groups"),
    ],
)
def test_other_schemes_are_refused_by_name(change, message):
    with pytest.raises(CheckpointError, match=message):
        weight_schemes({**quantization_config({"layer": Grid(4, 32)}, []), **change})
    with pytest.raises(CheckpointError, match=r"weights\.symmetric' must be true for 8 bits"):
        weight_schemes(quantization_config({"layer": Grid(8, 32, False)}, []))
