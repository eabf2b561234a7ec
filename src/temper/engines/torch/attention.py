"""Attention over a paged cache, as a function that transformers' models call in place of their own.

A model sees one row of tokens, those of all sequences side by side; this function alone knows where
one ends and the next begins. It stores the new keys and values in their pages, then attends: the
sequences that add a single token together, the others one by one. It knows no architecture, and takes
head sizes, windows, caps and sinks as a model's layers give them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from temper.errors import CheckpointError
from temper.kernels.executor import StepBatch

NAME: Final = "temper_paged"
"""What a model's config calls this function."""

_UNDERSTOOD: Final = frozenset(
    {"dropout", "position_ids", "use_cache", "output_attentions", "is_causal", "cache_position", "logits_to_keep",
     "output_hidden_states", "return_dict", "output_router_logits", "position_embeddings", "past_key_values"}
)  # fmt: skip
"""What layers pass along that changes nothing here."""


class PagedCache:
    """Keys and values of every layer, [places, kv heads, head size] each, made when the layer first runs."""

    def __init__(self, num_places: int, dtype: torch.dtype) -> None:
        self.num_places = num_places
        self._dtype = dtype
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The arrays of layer `index`, shaped after its `key` and `value` [tokens, kv heads, head size]."""
        found = self._layers.get(index)
        if found is None:
            found = (
                torch.zeros((self.num_places, *key.shape[1:]), dtype=self._dtype, device=key.device),
                torch.zeros((self.num_places, *value.shape[1:]), dtype=self._dtype, device=value.device),
            )
            self._layers[index] = found
        return found

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays made so far."""
        return sum(array.nbytes for pair in self._layers.values() for array in pair)


@dataclass(slots=True)
class _Group:
    """Sequences that attend together: B of them, Q new tokens each, C places at most."""

    rows: Tensor
    """[B, Q] their tokens' rows in the step."""
    places: Tensor
    """[B, C] where their keys and values lie; what is beyond a sequence's end names place 0."""
    positions: Tensor
    """[B, Q] position of each query in its sequence."""
    masks: dict[int | None, Tensor] = field(default_factory=dict)

    def mask(self, window: int | None) -> Tensor:
        """[B, 1, Q, C] which places each query sees; `window` of the latest ones where it is given."""
        if window not in self.masks:
            keys = torch.arange(self.places.shape[1], device=self.places.device)
            seen = keys <= self.positions[..., None]
            if window is not None:
                seen &= keys > self.positions[..., None] - window
            self.masks[window] = seen[:, None]
        return self.masks[window]


class PagedStep:
    """Where the tokens of one step lie; made once a step and read by every layer."""

    def __init__(self, batch: StepBatch, cache: PagedCache, block_tokens: int, device: torch.device) -> None:
        self.cache = cache
        starts, lens = batch.q_starts, batch.context_lens
        counts = np.diff(starts)
        tables = batch.block_tables.astype(np.int64)
        own = tables[np.repeat(np.arange(len(counts)), counts), batch.positions // block_tokens]
        self.places = torch.from_numpy(own * block_tokens + batch.positions % block_tokens).to(device)
        """[N] where each token's own key and value go."""
        self.groups: list[_Group] = []
        single = np.flatnonzero(counts == 1)
        chosen = [single] if len(single) else []
        for members in (*chosen, *(np.array([i]) for i in np.flatnonzero(counts > 1))):
            rows = starts[members, None] + np.arange(counts[members[0]])
            context = np.arange(lens[members].max())
            places = tables[members][:, context // block_tokens] * block_tokens + context % block_tokens
            places[context[None] >= lens[members, None]] = 0
            self.groups.append(
                _Group(
                    torch.from_numpy(rows.astype(np.int64)).to(device),
                    torch.from_numpy(places).to(device),
                    torch.from_numpy(batch.positions[rows].astype(np.int64)).to(device),
                )
            )


def register() -> None:
    """Make the function known to transformers under `NAME`. May be called again."""
    # Not compiled with the rest: its shapes change with every step.
    AttentionInterface.register(NAME, torch.compiler.disable(paged_attention))


def paged_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    temper_step: PagedStep,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer: `query` [1, heads, N, D], `key` and `value` [1, kv heads, N, D] → [1, N, heads, D].

    Raises:
        CheckpointError: the layer asks for a kind of attention that this is not.
    """
    _refuse(others)
    heads, num_kv, width = query.shape[1], key.shape[1], value.shape[-1]
    new_keys, new_values = key[0].transpose(0, 1), value[0].transpose(0, 1)
    keys, values = temper_step.cache.layer(int(module.layer_idx), new_keys, new_values)
    keys[temper_step.places] = new_keys.to(keys.dtype)
    values[temper_step.places] = new_values.to(values.dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    sinks = None if s_aux is None else s_aux.reshape(num_kv, heads // num_kv)
    queries = query[0].transpose(0, 1)
    out = query.new_empty((query.shape[2], heads, width))
    for group in temper_step.groups:
        size, num_new = group.rows.shape
        # Queries that share their keys stand below each other: [B, kv heads, queries per key · Q, D].
        q = queries[group.rows].reshape(size, num_new, num_kv, -1, query.shape[-1])
        q = q.permute(0, 2, 3, 1, 4).reshape(size, num_kv, -1, query.shape[-1])
        k = keys[group.places].transpose(1, 2).to(q.dtype)
        v = values[group.places].transpose(1, 2).to(q.dtype)
        mask = group.mask(sliding_window).repeat(1, 1, heads // num_kv, 1)
        if softcap is None and sinks is None:
            found = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        else:
            found = _attend(q, k, v, mask, scale, softcap, sinks)
        found = found.reshape(size, num_kv, -1, num_new, width).permute(0, 3, 1, 2, 4)
        out[group.rows] = found.reshape(size, num_new, heads, width)
    return out[None], None


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, softcap: float | None, sinks: Tensor | None
) -> Tensor:
    """Attention written out, for scores that are capped or that share their mass with a sink."""
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~mask, -math.inf)
    if sinks is not None:
        # [kv heads, queries per key] → one more column for each query.
        num_new = q.shape[2] // sinks.shape[1]
        column = sinks.float().repeat_interleave(num_new, dim=1)[None, :, :, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, column], dim=-1)
    weights = torch.softmax(scores, dim=-1)
    if sinks is not None:
        weights = weights[..., :-1]
    return weights.to(v.dtype) @ v


def _refuse(others: Mapping[str, Any]) -> None:
    if strange := [name for name, value in others.items() if value is not None and name not in _UNDERSTOOD]:
        raise CheckpointError(
            f"this model's attention asks for {', '.join(sorted(strange))}, which the torch engine does not offer",
            hint="serve it by another engine",
        )
