"""Attention over examples that stand side by side in one row, as a function that transformers' models call.

Each example is attended by itself, causally: no padding, no mask as large as the square of a row, and no look from one
example into another. It knows no architecture; what layers ask for beyond scaling and windows is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from temper.errors import CheckpointError
from temper.refine.train.batches import Batch

NAME: Final = "temper_side_by_side"
"""What a model's config calls this function."""

SHORT_TOKENS: Final = 256
"""Examples below this are attended in float32: torch's backward pass in bfloat16 takes up to twice as long there
(Sapphire Rapids, torch 2.13: 18 against 8 ms for eight examples of 64 tokens, equal at 256, 36 against 57 at 1024)."""

_UNDERSTOOD: Final = frozenset(
    {"position_ids", "use_cache", "output_attentions", "is_causal", "cache_position", "logits_to_keep", "cache",
     "output_hidden_states", "return_dict", "output_router_logits", "position_embeddings", "past_key_values"}
)  # fmt: skip
"""What layers pass along that changes nothing here."""


@contextmanager
def side_by_side(model: Any) -> Iterator[None]:
    """Within, `model` takes a `Batch` (see `inputs`); afterwards it attends as before."""
    AttentionInterface.register(NAME, attend)
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before


def inputs(batch: Batch) -> dict[str, Any]:
    """Arguments under which a model reads the batch."""
    return {
        "input_ids": batch.token_ids,
        "position_ids": batch.position_ids,
        "temper_starts": batch.starts,
        "use_cache": False,
    }


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    temper_starts: tuple[int, ...],
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer: `query` [1, heads, N, D], `key` and `value` [1, kv heads, N, D] → [1, N, heads, D].

    Raises:
        CheckpointError: the layer asks for a kind of attention that this is not.
    """
    _refuse(others)
    query, key = query.to(value.dtype), key.to(value.dtype)
    found = []
    with torch.autocast("cpu", enabled=False):  # which would put short examples into bfloat16 again
        for begin, end in pairwise(temper_starts):
            dtype = torch.float32 if end - begin < SHORT_TOKENS else value.dtype
            mask = _window(end - begin, sliding_window, query.device)
            q, k, v = (part[:, :, begin:end].to(dtype) for part in (query, key, value))
            out = scaled_dot_product_attention(
                q, k, v, attn_mask=mask,
                is_causal=mask is None, dropout_p=dropout, scale=scaling, enable_gqa=query.shape[1] != key.shape[1],
            )  # fmt: skip
            found.append(out.transpose(1, 2).to(value.dtype))
    return torch.cat(found, dim=1) if len(found) > 1 else found[0].contiguous(), None


def _window(length: int, window: int | None, device: torch.device) -> Tensor | None:
    if window is None or length <= window:
        return None
    at = torch.arange(length, device=device)
    return (at[None] <= at[:, None]) & (at[None] > at[:, None] - window)


def _refuse(others: Mapping[str, Any]) -> None:
    if strange := [name for name, value in others.items() if value is not None and name not in _UNDERSTOOD]:
        raise CheckpointError(
            f"this model's attention asks for {', '.join(sorted(strange))}, which training does not offer",
            hint="begin with a llama, qwen2 or qwen3 checkpoint",
        )
