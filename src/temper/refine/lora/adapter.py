"""Adapters: matrices put beside a model's frozen layers, written to a folder that PEFT, vLLM and our engine read.

Reading is `models.adapter`'s. Knows no training.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from temper.errors import Invalid
from temper.models.chat_template import TEMPLATE_NAME
from temper.models.manifest import Step, write_steps
from temper.profile.presets import nearest
from temper.refine.formats.folder import check_free
from temper.refine.lora.layers import LoraLinear
from temper.refine.lora.recipe import LoraRecipe

CONFIG_NAME: Final = "adapter_config.json"
WEIGHTS_NAME: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."


def attach(model: Any, config: LoraRecipe, seed: int, dtype: torch.dtype) -> None:
    """Freeze `model`, put it into `dtype`, and give the layers that `config` names matrices to train.

    Raises:
        Invalid: a target names no linear layer of the model.
    """
    head = model.get_output_embeddings()
    linears = {name: m for name, m in model.named_modules() if type(m) is nn.Linear and m is not head}
    known = {name.rpartition(".")[2] for name in linears}
    for target in config.targets:
        if target not in known:
            raise Invalid(f"lora.targets name linear layers of the model, but it has no '{target}'",
                          param="lora.targets", hint=nearest(target, known))  # fmt: skip
    model.requires_grad_(False)
    chosen = [name for name in sorted(linears) if name.rpartition(".")[2] in config.targets]
    for number, name in enumerate(chosen):
        generator = torch.Generator().manual_seed(int(np.random.default_rng([seed, number]).integers(1 << 62)))
        parent, _, last = name.rpartition(".")
        layer = LoraLinear(
            linears[name], config.rank, config.scale, config.dropout, config.base == "nf4", generator
        )  # fmt: skip
        setattr(model.get_submodule(parent), last, layer)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def layers(model: Any) -> Iterator[tuple[str, LoraLinear]]:
    """The layers that have matrices, by name."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def write_adapter(
    folder: Path, model: Any, config: LoraRecipe, base: str, steps: Sequence[Step], *, template: str | None = None
) -> None:
    """Write the matrices of `model` in float32, whole or not at all, with the source of the chat template by which
    they were taught, where it is not the base model's.

    Raises:
        Invalid: something is at `folder` already.
    """
    check_free(folder)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors = {}
    for name, layer in layers(model):
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = layer.lora_A.detach().contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = layer.lora_B.detach().contiguous()
    save_file(tensors, part / WEIGHTS_NAME, {"format": "pt"})
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        "target_modules": sorted(config.targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
        "inference_mode": True,
    }
    (part / CONFIG_NAME).write_text(json.dumps(described, indent=2), "utf-8")
    if template is not None:
        (part / TEMPLATE_NAME).write_text(template, "utf-8")
    write_steps(part, steps)
    part.rename(folder)
