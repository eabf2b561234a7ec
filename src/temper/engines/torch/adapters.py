"""LoRA adapters beside a transformers model's linear layers, for the rows of a step that ask for them.

Each layer that some adapter changes gets a hook, which adds `B · (scale · (A · x))` to the rows whose sequence has
that adapter; `kernels/lora.py` says what that means. It knows no files and no requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from temper.kernels.executor import StepBatch
from temper.kernels.lora import LowRank, Updates
from temper.kernels.weights import dequantize

_HEAD_NAMES = ("lm_head.weight", "model.embed_tokens.weight")
"""The head's weight, its own or tied."""


class TorchAdapter:
    """An adapter on the model's device: module → (A, B, scale)."""

    def __init__(self, parts: Mapping[str, tuple[Tensor, Tensor, float]]) -> None:
        self.parts = parts

    @property
    def num_bytes(self) -> int:
        """Of all its matrices."""
        return sum(a.nbytes + b.nbytes for a, b, _ in self.parts.values())


class TorchAdapters:
    """Those that are attached to one model, and the rows of the present step."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._head = model.get_output_embeddings()
        self._attached: dict[int, TorchAdapter] = {}
        self._hooked: set[str] = set()
        self._runs: list[tuple[int, int, int]] = []
        self._head_runs: list[tuple[int, int, int]] = []
        """(slot, first row, last + 1) of tokens, and of logit rows."""

    def pack(self, updates: Updates) -> TorchAdapter:
        """An adapter on the device. ValueError, naming the weight, where the model has no such linear layer."""
        return TorchAdapter(dict(self._part(name, update) for name, update in updates.items()))

    def _part(self, name: str, update: LowRank) -> tuple[str, tuple[Tensor, Tensor, float]]:
        module = "lm_head" if name in _HEAD_NAMES else name.removesuffix(".weight")
        try:
            layer = self._model.get_submodule(module)
        except AttributeError:
            layer = None
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"'{module}' is no linear layer of this model, so it cannot be adapted")
        a, b = (torch.from_numpy(dequantize(t)).to(self._device) for t in (update.a, update.b))
        if (a.shape[1], b.shape[0]) != (layer.in_features, layer.out_features):
            raise ValueError(f"'{module}' is [{layer.out_features}, {layer.in_features}]; the adapter has other sizes")
        return module, (a, b, update.scale)

    def attach(self, packed: TorchAdapter) -> int:
        """The lowest free slot."""
        for module in set(packed.parts) - self._hooked:
            layer = self._model.get_submodule(module)
            layer.register_forward_hook(partial(self._add, module, layer is self._head))
            self._hooked.add(module)
        slot = next(i for i in range(len(self._attached) + 1) if i not in self._attached)
        self._attached[slot] = packed
        return slot

    def detach(self, slot: int) -> None:
        """Forget it."""
        if self._attached.pop(slot, None) is None:
            raise ValueError(f"no adapter is attached at slot {slot}")

    def begin(self, batch: StepBatch) -> None:
        """The step whose rows come next. ValueError where it names a slot that is free."""
        self._runs = self._head_runs = []
        if batch.adapters is None:
            return
        wrong = next((slot for slot in batch.adapters.tolist() if slot != -1 and slot not in self._attached), None)
        if wrong is not None:
            raise ValueError(f"no adapter is attached at slot {wrong}")
        rows = np.repeat(batch.adapters, np.diff(batch.q_starts))
        self._runs, self._head_runs = _runs(rows), _runs(rows[batch.logit_rows])

    def _add(self, module: str, is_head: bool, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        runs = self._head_runs if is_head else self._runs
        parts = [(begin, end, self._attached[slot].parts.get(module)) for slot, begin, end in runs]
        if not any(part for _, _, part in parts):
            return output
        added = output.clone()
        for begin, end, part in parts:
            if part is not None:
                a, b, scale = part
                x = args[0][..., begin:end, :].to(a.dtype)
                added[..., begin:end, :] += ((x @ a.T) * scale @ b.T).to(output.dtype)
        return added


def _runs(slots: np.ndarray[tuple[int], np.dtype[np.int32]]) -> list[tuple[int, int, int]]:
    """Neighbouring rows of one adapter together; rows without one left out."""
    if not len(slots):
        return []
    edges = [0, *(np.flatnonzero(np.diff(slots)) + 1).tolist(), len(slots)]
    return [(int(slots[b]), b, e) for b, e in pairwise(edges) if slots[b] >= 0]
