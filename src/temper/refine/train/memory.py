"""What training takes of memory, found by running a few tokens through the model, and a refusal with the sum.

What autograd keeps is counted tensor by tensor, so the estimate needs no formula of an architecture. What an allocator
adds is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from temper import machine
from temper.errors import Invalid
from temper.refine.train.activations import whole_activations
from temper.refine.train.batches import Batch, collate
from temper.refine.train.examples import Example
from temper.refine.train.head import FROZEN_ROWS, LEARNED_ROWS
from temper.refine.train.losses import Loss
from temper.refine.train.recipe import Training

PROBE_TOKENS: Final = 64
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of one process at its fullest moment."""

    weights: int
    gradients: int
    moments: int
    """AdamW's two."""
    activations: int
    """What is kept for the backward pass of one micro-batch."""
    logits: int
    """A chunk of logits with its gradient."""
    state: int
    """A copy of weights and moments while they are written; nothing else is there then."""

    @property
    def total(self) -> int:
        """All together."""
        working = self.gradients + self.activations + self.logits
        return self.weights + self.moments + max(working, self.state)

    def sum(self) -> str:
        """The addition, in words."""
        parts = {
            "weights": self.weights, "moments": self.moments, "gradients": self.gradients,
            "activations": self.activations, "logits": self.logits,
        }  # fmt: skip
        if self.state > self.gradients + self.activations + self.logits:
            parts = {"weights": self.weights, "moments": self.moments, "a copy of both to write": self.state}
        return " + ".join(f"{size / GIB:.2f} {name}" for name, size in parts.items() if size)


def estimate(model: Any, settings: Training, loss: Loss, longest: int, resolved: Mapping[str, Any]) -> Need:
    """What one process needs for micro-batches whose rows have `longest` tokens at most.

    To be called inside `loop.prepared`; leaves no gradient behind.
    """
    parameters = list(model.parameters())
    learned = [parameter for parameter in parameters if parameter.requires_grad]
    trained = sum(parameter.nbytes for parameter in learned)
    weights = sum(values.nbytes for values in (*parameters, *model.buffers()))
    tokens = settings.batch.micro_batch * longest
    activations = _activations(model, loss, tokens, resolved)
    if settings.compute.checkpoint_activations:
        with whole_activations(model):
            whole = _activations(model, loss, tokens, resolved)
        activations += whole // model.config.num_hidden_layers  # one layer at a time is computed again
    head = model.get_output_embeddings().weight
    rows = min(tokens, LEARNED_ROWS if head.requires_grad else FROZEN_ROWS)
    return Need(
        weights=weights,
        gradients=trained,
        moments=2 * trained,
        activations=activations,
        logits=rows * head.shape[0] * (4 + 4 + (2 if resolved["precision"] == "bf16" else 4)),
        state=3 * trained,
    )


def check(need: Need, settings: Training) -> None:
    """Refuse what does not fit.

    Raises:
        Invalid: with the addition, what there is, and what makes it less.
    """
    compute = settings.compute
    there = compute.memory_bytes
    if there == "auto":
        there = machine.available_memory_bytes() + need.weights  # they are loaded already
    total = need.total * compute.processes
    if total > there:
        times = f", times {compute.processes} processes" if compute.processes > 1 else ""
        raise Invalid(
            f"training takes {total / GIB:.2f} GiB of memory ({need.sum()}{times}), but there are {there / GIB:.2f}",
            param="compute.memory_bytes",
            hint=_hint(need, settings),
        )


def _hint(need: Need, settings: Training) -> str:
    found = []
    if need.activations > need.total // 4:
        found += ["a smaller batch.micro_batch or batch.context_length"] if settings.batch.micro_batch > 1 else []
        found += [] if settings.compute.checkpoint_activations else ["compute.checkpoint_activations = true"]
    if getattr(settings, "lora", None) is None and need.moments > need.total // 8:
        found.append("a [lora] table, which trains small matrices alone")
    if settings.compute.processes > 1:
        found.append("fewer compute.processes")
    return f"less: {'; '.join(found) or 'a smaller model, or a shorter batch.context_length'}"


def _activations(model: Any, loss: Loss, tokens: int, resolved: Mapping[str, Any]) -> int:
    """Kept bytes of `tokens` tokens, along the line through two probes: weights in another format do not grow."""
    small, large = (_kept_bytes(model, loss, resolved, count * PROBE_TOKENS) for count in (1, 2))
    return small + (large - small) * (tokens - PROBE_TOKENS) // PROBE_TOKENS


def _kept_bytes(model: Any, loss: Loss, resolved: Mapping[str, Any], tokens: int) -> int:
    """Bytes that autograd keeps of a forward pass, parameters left out, each storage once."""
    own = {values.untyped_storage().data_ptr() for values in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def note(values: Tensor) -> Tensor:
        storage = values.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return values

    model.train()
    with (
        torch.random.fork_rng(devices=[]),
        torch.autocast("cpu", torch.bfloat16, enabled=resolved["precision"] == "bf16"),
        torch.autograd.graph.saved_tensors_hooks(note, lambda values: values),
    ):
        loss(model, _probe(model, tokens))
    return sum(kept.values())


def _probe(model: Any, tokens: int) -> Batch:
    """Tokens of which every eighth is learned, so that the head weighs little."""
    ids = np.arange(tokens, dtype=np.int32) % model.config.vocab_size
    learned = np.arange(tokens) % 8 == 7
    return collate([Example(ids, learned)])
