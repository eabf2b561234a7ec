"""AdamW over the parameters of a model that ask for a gradient, with a state that is plain named tensors.

Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101. The arithmetic is torch's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from temper.errors import Invalid, MalformedFile
from temper.refine.train.recipe import OptimizerConfig

_WEIGHT, _MEAN, _SQUARE = "weight.", "mean.", "square."


class AdamW:
    """The trained parameters by name, and their moments."""

    def __init__(self, model: Any, config: OptimizerConfig) -> None:
        """Raises Invalid when the model has nothing to train."""
        self.parameters: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise Invalid("training needs a parameter that asks for a gradient, but all are frozen")
        self._clip_norm = config.clip_norm
        decays = [p for p in self.parameters.values() if p.ndim > 1]
        others = [p for p in self.parameters.values() if p.ndim <= 1]
        groups = [{"params": decays, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._inner = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=config.learning_rate,
            betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True,
        )  # fmt: skip

    def gradients(self) -> list[Tensor]:
        """The gradient of every parameter, zeros where a batch did not reach it, in the order of their names."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for _, parameter in sorted(self.parameters.items()) if parameter.grad is not None]

    def step(self, learning_rate: float) -> float:
        """Change the weights by their gradients and drop those; returns the length they had before they were cut."""
        longest = self._clip_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), longest))
        for group in self._inner.param_groups:
            group["lr"] = learning_rate
        self._inner.step()
        self._inner.zero_grad(set_to_none=True)
        return norm

    def weights(self) -> dict[str, Tensor]:
        """The trained parameters by name."""
        return {name: parameter.detach() for name, parameter in self.parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """Weights and moments, for `load`."""
        found = {f"{_WEIGHT}{name}": parameter.detach() for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            moments = self._inner.state.get(parameter)
            if moments:
                found[f"{_MEAN}{name}"] = moments["exp_avg"]
                found[f"{_SQUARE}{name}"] = moments["exp_avg_sq"]
        return found

    def load(self, tensors: Mapping[str, Tensor], num_steps: int) -> None:
        """Put weights and moments after `num_steps` steps in place.

        Raises:
            MalformedFile: they are not those of this model.
        """
        for name, parameter in self.parameters.items():
            parts = [tensors.get(f"{kind}{name}") for kind in (_WEIGHT, _MEAN, _SQUARE)]
            if any(part is None or part.shape != parameter.shape for part in parts):
                raise MalformedFile(f"the state holds no '{name}' of shape {tuple(parameter.shape)}",
                                    hint="the model has changed since; name another folder")  # fmt: skip
            weight, mean, square = parts
            with torch.no_grad():
                parameter.copy_(weight)
            self._inner.state[parameter] = {
                "step": torch.tensor(float(num_steps)), "exp_avg": mean, "exp_avg_sq": square,
            }  # fmt: skip
