"""A checkpoint as a transformers network to be changed, and back into a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from temper.engines.torch.weights import model_from_checkpoint, model_from_folder
from temper.errors import CheckpointError
from temper.models.chat_template import ChatTemplate
from temper.models.checkpoint import Checkpoint, is_folder, open_checkpoint
from temper.models.hf_folder import HfFolder
from temper.models.manifest import Step
from temper.refine.formats.folder import write_folder

ATTENTION = "sdpa"
"""Torch's own: it differentiates, which the paged attention of the torch engine does not."""


@dataclass(slots=True)
class Network:
    """A model in float32 with what belongs to it."""

    checkpoint: Checkpoint
    """Where it came from: tokenizer, template, manifest."""
    model: Any
    """A transformers causal language model."""

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json, without what only this process knows."""
        found: dict[str, Any] = self.model.config.to_dict()
        for key in ("quantization_config", "_name_or_path", "transformers_version"):
            found.pop(key, None)
        special = self.checkpoint.tokenizer.special
        eos = list(special.eos) if len(special.eos) > 1 else next(iter(special.eos), None)
        return {**found, "bos_token_id": special.bos, "eos_token_id": eos, "pad_token_id": special.pad}

    def write(self, folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], step: Step) -> None:
        """Write `tensors` as a checkpoint with this one's tokenizer, template and history; see `write_folder`."""
        write_folder(folder, self.checkpoint, config, tensors, step)

    def save(self, folder: Path, step: Step) -> None:
        """Write it as a checkpoint in bfloat16."""
        self.write(folder, {**self.config, "dtype": "bfloat16"}, self.weights(), step)

    def use_template(self, template: ChatTemplate) -> None:
        """Put another chat template in place of the checkpoint's."""
        self.checkpoint = replace(self.checkpoint, template=template)

    def put(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put some parameters in place, by their names in the model."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, values in weights.items():
                parameters[name].copy_(values)

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights in bfloat16, a tied head left out."""
        tied = bool(self.model.config.tie_word_embeddings)
        return {
            name: values.detach().to(torch.bfloat16)
            for name, values in self.model.state_dict().items()
            if not (tied and name == "lm_head.weight")
        }


def open_network(source: str, cache_dir: Path) -> Network:
    """The network of a checkpoint, its weights widened to float32 whatever they were stored in.

    Raises:
        NotFound, FetchFailed, CheckpointError: as `models.checkpoint.open_checkpoint`.
    """
    checkpoint = open_checkpoint(source, cache_dir)
    path = checkpoint.fetched.path
    if is_folder(checkpoint.fetched) and not HfFolder(path).quantized:
        model = model_from_folder(path, torch.float32, ATTENTION)
    elif checkpoint.config.rope_scaling is not None:
        raise CheckpointError(
            f"'{source}' stretches its positions ({checkpoint.config.rope_scaling.kind}), and such a model is refined "
            "from plain weights alone",
            hint="begin with its safetensors folder in bf16",
        )
    else:
        model = model_from_checkpoint(checkpoint, torch.float32, ATTENTION)
    checkpoint.release()
    return Network(checkpoint, model)
