"""A merged checkpoint answers as the model with its adapter beside it, from a folder or a GGUF, ours or PEFT's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from temper.errors import CheckpointError, Invalid
from temper.models.checkpoint import open_checkpoint
from temper.refine.lora.adapter import attach, layers, write_adapter
from temper.refine.lora.merge import merge
from temper.refine.lora.recipe import LoraRecipe
from temper.refine.network import Network, open_network
from tests.tiny_models import write_tiny_folder, write_tiny_gguf


def silent(what: str, done: int, total: int) -> None:
    pass


def logits(network: Network) -> torch.Tensor:
    with torch.inference_mode():
        return network.model(torch.arange(5, 45)[None], use_cache=False).logits


@pytest.mark.parametrize("container", ["folder", "gguf"])
@pytest.mark.parametrize("rslora", [False, True])
def test_merged_is_as_beside(tmp_path: Path, container, rslora):
    if container == "folder":
        source = write_tiny_folder(tmp_path / "plain", "qwen2")
    else:
        source = write_tiny_gguf(tmp_path / "plain.gguf", "llama")
    network = open_network(str(source), tmp_path)
    config = LoraRecipe(rank=4, alpha=8.0, targets=("q_proj", "k_proj", "up_proj"), rslora=rslora)
    attach(network.model, config, 0, torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for _, layer in layers(network.model):
            layer.lora_B.normal_(std=0.1)
    beside = logits(network)
    write_adapter(tmp_path / "adapter", network.model, config, str(source), (), template="{{ 'its own' }}")
    step = merge(
        open_network(str(source), tmp_path), tmp_path / "adapter", tmp_path / "merged", weight=1.0, tell=silent
    )
    merged = logits(open_network(str(tmp_path / "merged"), tmp_path))
    plain = logits(open_network(str(source), tmp_path))
    assert float((merged - beside).norm() / beside.norm()) < 0.02
    assert float((plain - beside).norm() / beside.norm()) > 0.1
    opened = open_checkpoint(str(tmp_path / "merged"), tmp_path)
    assert (opened.manifest.steps, opened.template.source) == ((step,), "{{ 'its own' }}")
    merge(open_network(str(source), tmp_path), tmp_path / "adapter", tmp_path / "none", weight=0.0, tell=silent)
    assert float((logits(open_network(str(tmp_path / "none"), tmp_path)) - plain).norm() / plain.norm()) < 0.02


def test_what_does_not_fit_is_refused(tmp_path: Path):
    network = open_network(str(write_tiny_folder(tmp_path / "plain")), tmp_path)
    attach(network.model, LoraRecipe(rank=2, targets=("q_proj",)), 0, torch.float32)
    write_adapter(tmp_path / "adapter", network.model, LoraRecipe(rank=2, targets=("q_proj",)), "", ())
    other = write_tiny_folder(tmp_path / "other", hidden_size=192, head_dim=32)
    with pytest.raises(CheckpointError, match="must have shape"):
        merge(open_network(str(other), tmp_path), tmp_path / "adapter", tmp_path / "out", weight=1.0, tell=silent)
    with pytest.raises(Invalid, match="new folder"):
        merge(network, tmp_path / "adapter", tmp_path / "plain", weight=1.0, tell=silent)
