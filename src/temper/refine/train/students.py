"""What a run trains and leaves behind: a whole network, or an adapter beside a frozen one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from temper.models.manifest import Step
from temper.refine.lora.adapter import attach, write_adapter
from temper.refine.lora.recipe import LoraRecipe
from temper.refine.network import Network


class Student(Protocol):
    """Something that learns."""

    network: Network
    """Its `model` is trained where its parameters ask for a gradient."""

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Put trained parameters in place, by their names in the model."""

    def save(self, folder: Path, step: Step) -> None:
        """Write what was learned to a new folder."""


@dataclass(slots=True)
class WholeNetwork:
    """Every weight learns; what is left is a checkpoint."""

    network: Network

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """See `Student`."""
        self.network.put(weights)

    def save(self, folder: Path, step: Step) -> None:
        """A checkpoint in bfloat16."""
        self.network.save(folder, step)


@dataclass(slots=True)
class Adapter:
    """Matrices beside frozen layers learn; what is left is an adapter in PEFT's format."""

    network: Network
    config: LoraRecipe

    @staticmethod
    def beside(network: Network, config: LoraRecipe, seed: int, dtype: torch.dtype) -> Adapter:
        """Attach new matrices to the network, whose weights are frozen in `dtype`."""
        attach(network.model, config, seed, dtype)
        return Adapter(network, config)

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """See `Student`."""
        self.network.put(weights)

    def save(self, folder: Path, step: Step) -> None:
        """A folder that PEFT, vLLM and the native engine read."""
        checkpoint = self.network.checkpoint
        steps = [*checkpoint.manifest.steps, step]
        template = checkpoint.template.source
        write_adapter(folder, self.network.model, self.config, checkpoint.source, steps, template=template)
