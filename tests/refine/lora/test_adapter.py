"""An adapter is trained by a recipe, written as PEFT writes one, and refused where it names nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from temper.errors import Invalid
from temper.models.manifest import read_steps
from temper.refine.lora.adapter import attach, layers, write_adapter
from temper.refine.lora.recipe import LINEARS, LoraRecipe
from temper.refine.network import open_network
from tests.refine.train.test_loop import curve, place, run
from tests.tiny_models import write_tiny_folder

__all__ = ["place"]


def test_an_adapter_learns_and_the_model_beside_it_does_not(place: Path):
    found = run(place, "lora.rank=8", "targets=['q_proj', 'down_proj']", "learning_rate=1e-2", "lora.dropout=0.1")
    losses = [line["loss"] for line in found.history]
    assert losses[-1] < 0.8 * losses[0]
    last = found.checkpoints["last"]
    described = json.loads((last / "adapter_config.json").read_text())
    assert (described["peft_type"], described["r"], described["lora_alpha"]) == ("LORA", 8, 32.0)
    assert described["target_modules"] == ["down_proj", "q_proj"]
    assert described["base_model_name_or_path"] == str(place / "plain")
    tensors = load_file(last / "adapter_model.safetensors")
    assert {name: tuple(values.shape) for name, values in tensors.items()} == {
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": (8, 96),
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": (96, 8),
        "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight": (8, 160),
        "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight": (96, 8),
    }
    assert [step.recipe for step in read_steps(last)] == ["lora"]
    again = run(place, "out=again", "lora.rank=8", "targets=['q_proj', 'down_proj']", "learning_rate=1e-2",
                "lora.dropout=0.1")  # fmt: skip
    assert curve(again.checkpoints["last"].parent) == curve(last.parent)


@pytest.mark.parametrize("base", ["as_is", "nf4"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_base_learns(place: Path, base, precision):
    found = run(
        place, f"lora.base={base}", f"precision={precision}", "learning_rate=1e-2", "checkpoint_activations=true"
    )
    assert found.history[-1]["loss"] < 0.8 * found.history[0]["loss"]
    assert found.outcome.best_loss < 0.8 * found.history[0]["loss"]


def test_new_matrices_change_nothing(tmp_path: Path):
    network = open_network(str(write_tiny_folder(tmp_path / "plain", "qwen2")), tmp_path)
    tokens = torch.arange(20)[None]
    with torch.inference_mode():
        before = network.model(tokens).logits
        attach(network.model, LoraRecipe(), 0, torch.float32)
        torch.testing.assert_close(network.model(tokens).logits, before)
    assert len(list(layers(network.model))) == 3 * len(LINEARS)
    learning = [name for name, p in network.model.named_parameters() if p.requires_grad]
    assert all(name.endswith(("lora_A", "lora_B")) for name in learning)


def test_what_cannot_be_attached_or_written(tmp_path: Path):
    network = open_network(str(write_tiny_folder(tmp_path / "plain")), tmp_path)
    with pytest.raises(Invalid, match=r"has no 'q_prj' \(did you mean 'q_proj'"):
        attach(network.model, LoraRecipe(targets=("q_prj",)), 0, torch.float32)
    with pytest.raises(Invalid, match="new folder"):
        write_adapter(tmp_path / "plain", network.model, LoraRecipe(), "", ())
