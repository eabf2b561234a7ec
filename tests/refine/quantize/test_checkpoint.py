"""`quantize` from a folder or a GGUF to a folder that our own engine reads, with its history."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from temper.errors import Invalid
from temper.kernels.weights import dequantize
from temper.models.checkpoint import open_checkpoint
from temper.refine.network import open_network
from temper.refine.quantize.checkpoint import budget_bits, quantize
from temper.refine.quantize.nf4 import dequantize_nf4, quantize_nf4
from temper.refine.quantize.recipe import QuantizeRecipe
from tests.tiny_models import write_tiny_folder, write_tiny_gguf

TOKENS = [int(token) for token in np.random.default_rng(0).integers(0, 250, 512)]


def silent(what: str, done: int, total: int) -> None:
    pass


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([TOKENS[:64]]), use_cache=False).logits


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
@pytest.mark.parametrize("container", ["folder", "gguf"])
def test_a_quantized_checkpoint_is_one_that_opens(tmp_path: Path, method, container):
    if container == "folder":
        source = write_tiny_folder(tmp_path / "plain", "qwen2")
    else:
        source = write_tiny_gguf(tmp_path / "plain.gguf", "llama", quantization="q8_0")
    network = open_network(str(source), tmp_path)
    before = logits(network.model)
    recipe = QuantizeRecipe(method, bits=8, group=32, calibration_tokens=256, window=64)
    step = quantize(network, recipe, TOKENS, "data", tmp_path / "small", silent)
    found = open_checkpoint(str(tmp_path / "small"), tmp_path)
    assert found.manifest.formats["q8_0"] == 3 * 7
    assert found.manifest.steps == (step,)
    assert (step.recipe, step.settings["method"], step.parent) == (
        "quantize", method, open_checkpoint(str(source), tmp_path).manifest_hash(),
    )  # fmt: skip
    after = logits(open_network(str(tmp_path / "small"), tmp_path).model)
    assert float((after - before).norm() / before.norm()) < 0.03


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_nf4_is_read_by_our_engines_as_what_it_stands_for(tmp_path: Path, architecture):
    source = write_tiny_folder(tmp_path / "plain", architecture)
    network = open_network(str(source), tmp_path)
    weight = network.model.model.layers[1].mlp.up_proj.weight.detach().numpy().copy()
    quantize(network, QuantizeRecipe("nf4"), [], "", tmp_path / "small", silent)
    found = open_checkpoint(str(tmp_path / "small"), tmp_path)
    assert found.manifest.formats["bf16"] == 3 * 7 + 2
    expected = dequantize_nf4(*quantize_nf4(weight), weight.shape)
    stored = dequantize(found.tensors["model.layers.1.mlp.up_proj.weight"])
    np.testing.assert_array_equal(stored, torch.from_numpy(expected).to(torch.bfloat16).float().numpy())
    assert found.manifest.steps[0].data_sha256 is None


def test_weights_and_activations_of_eight_bits(tmp_path: Path):
    source = write_tiny_folder(tmp_path / "plain")
    before = logits(open_network(str(source), tmp_path).model)
    recipe = QuantizeRecipe("rtn", activation_bits=8)
    quantize(open_network(str(source), tmp_path), recipe, [], "", tmp_path / "small", silent)
    config = json.loads((tmp_path / "small" / "config.json").read_text())["quantization_config"]
    assert config["config_groups"]["group_0"]["input_activations"]["num_bits"] == 8
    after = logits(open_network(str(tmp_path / "small"), tmp_path).model)
    assert float((after - before).norm() / before.norm()) < 0.05


def test_activations_of_eight_bits_under_a_budget(tmp_path: Path):
    source = write_tiny_folder(tmp_path / "plain")
    recipe = QuantizeRecipe(
        "rtn", activation_bits=8, budget_bits=6.0, choices=(4, 8), calibration_tokens=64, window=64,
        sensitivity_tokens=64,
    )  # fmt: skip
    step = quantize(open_network(str(source), tmp_path), recipe, TOKENS, "data", tmp_path / "small", silent)
    assert set(step.measured["bits"].values()) == {4, 8}
    config = json.loads((tmp_path / "small" / "config.json").read_text())["quantization_config"]
    assert config["format"] == "mixed-precision"
    for group in config["config_groups"].values():
        assert (group["input_activations"] is None) == (group["weights"]["num_bits"] == 4)
    found = open_checkpoint(str(tmp_path / "small"), tmp_path)
    for unit, bits in step.measured["bits"].items():
        named = [tensor for name, tensor in found.tensors.items() if name.startswith(unit) and len(tensor.shape) == 2]
        assert {tensor.format for tensor in named} == {"q8_0" if bits == 8 else "q4_0"}


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
def test_a_budget_is_kept_and_said_in_full(tmp_path: Path, method):
    source = write_tiny_folder(tmp_path / "plain", "qwen2")
    network = open_network(str(source), tmp_path)
    recipe = QuantizeRecipe(method, budget_bits=6.0, calibration_tokens=256, window=64, sensitivity_tokens=64)
    step = quantize(network, recipe, TOKENS, "data", tmp_path / "small", silent)
    assert step.measured["mean_bits"] <= 6.0
    assert len(step.measured["sensitivity"]) == len(step.measured["bits"]) == 3 * 2
    assert step.settings["choices"] == [3, 4, 8]
    found = open_checkpoint(str(tmp_path / "small"), tmp_path)
    formats = found.manifest.formats
    assert formats.get("q8_0", 0) + formats.get("q4_0", 0) == 3 * 7
    for unit, bits in step.measured["bits"].items():
        named = [tensor for name, tensor in found.tensors.items() if name.startswith(unit) and len(tensor.shape) == 2]
        assert {tensor.format for tensor in named} == {"q8_0" if bits == 8 else "q4_0"}


def test_a_size_becomes_bits(tmp_path: Path):
    network = open_network(str(write_tiny_folder(tmp_path / "plain")), tmp_path)
    num_weights = 3 * (96 * 96 * 2 + 96 * 32 * 2 + 96 * 160 * 3)
    rest = sum(values.nbytes for values in network.weights().values()) - 2 * num_weights
    assert budget_bits(network, rest + num_weights // 2) == pytest.approx(4)


def test_history_grows_and_does_not_change_what_the_hash_stands_for(tmp_path: Path):
    source = write_tiny_folder(tmp_path / "plain")
    recipe = QuantizeRecipe("rtn", bits=8)
    for number, parent in enumerate([source, tmp_path / "0"]):
        quantize(open_network(str(parent), tmp_path), recipe, [], "", tmp_path / str(number), silent)
    first, second = (open_checkpoint(str(tmp_path / name), tmp_path) for name in "01")
    assert [len(found.manifest.steps) for found in (first, second)] == [1, 2]
    assert second.manifest.steps[1].parent == first.manifest_hash()
    (tmp_path / "1" / "temper-steps.json").unlink()
    assert open_checkpoint(str(tmp_path / "1"), tmp_path).manifest_hash() == second.manifest_hash()


def test_what_cannot_be_is_said_before_any_work(tmp_path: Path):
    network = open_network(str(write_tiny_folder(tmp_path / "plain")), tmp_path)
    with pytest.raises(Invalid, match="a new checkpoint needs a new folder"):
        quantize(network, QuantizeRecipe("rtn"), [], "", tmp_path / "plain", silent)
    with pytest.raises(Invalid, match="64 does not divide the 96"):
        quantize(network, QuantizeRecipe("rtn", group=64), [], "", tmp_path / "out", silent)
    with pytest.raises(Invalid, match="wants 32 windows of 512 tokens, but the text has 512"):
        quantize(network, QuantizeRecipe("gptq"), TOKENS, "", tmp_path / "out", silent)
    with pytest.raises(Invalid, match=r"3\.70 a weight with scales, but is 3\.50"):
        quantize(network, QuantizeRecipe("rtn", budget_bits=3.5), TOKENS, "", tmp_path / "out", silent)
    with pytest.raises(Invalid, match=r"must hold what stays in bfloat16, 0\.1 MB"):
        budget_bits(network, 100_000)
    assert not (tmp_path / "out").exists()
