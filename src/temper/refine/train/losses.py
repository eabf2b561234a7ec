"""What training makes small: a function of a model and a batch.

The loop differentiates `Terms.total`, divided by the targets of the whole step, so a loss is a sum over targets and
never a mean. Distillation brings a loss of its own, with a teacher in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from temper.refine.train.attention import inputs
from temper.refine.train.batches import Batch
from temper.refine.train.head import linear_cross_entropy

PLAIN_HEADS: Final = ("llama", "qwen2", "qwen3")
"""Architectures whose logits are hidden states times a matrix and nothing else."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A loss over one batch."""

    total: Tensor
    """Scalar with a gradient, summed over the batch's targets."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Summands of it by name, for the history: `hard`, `soft`, `hidden`, …"""


Loss = Callable[[Any, Batch], Terms]
"""The model is a transformers causal language model inside `attention.side_by_side`."""


def answer_loss(model: Any, batch: Batch) -> Terms:
    """Cross-entropy of the targets, in nats."""
    head = model.get_output_embeddings()
    if model.config.model_type not in PLAIN_HEADS or head.bias is not None:
        logits = model(**inputs(batch), logits_to_keep=batch.rows).logits[0]
        return Terms(cross_entropy(logits.float(), batch.targets, reduction="sum"))
    hidden = model.base_model(**inputs(batch)).last_hidden_state[0, batch.rows]
    if torch.is_autocast_enabled("cpu"):
        hidden = hidden.to(torch.get_autocast_dtype("cpu"))
    return Terms(linear_cross_entropy(hidden, head.weight, batch.targets))
