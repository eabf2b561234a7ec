"""The Executor of the torch engine: a transformers model over one ragged batch, our sampler over its logits.

The model is called once a step with all tokens in one row; `attention.py` keeps the sequences apart. It
knows nothing of requests, text or files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from temper.engines.torch.adapters import TorchAdapter, TorchAdapters
from temper.engines.torch.attention import PagedCache, PagedStep
from temper.kernels.executor import ExecutorSpec, Float32, Int32, SamplerParams, StepBatch, TokenLogprobs
from temper.kernels.lora import PackedAdapter, Updates
from temper.kernels.sampling_reference import Slot, check_params, choose

KV_DTYPES = {"f16": torch.float16, "f32": torch.float32}


class TorchExecutor:
    """A loaded model with its cache and its samplers; see `kernels.executor.Executor`."""

    def __init__(self, model: Any, vocab_size: int, spec: ExecutorSpec, kv_block_bytes: int) -> None:
        """`model` takes input_ids, position_ids, logits_to_keep and `temper_step`, and returns logits."""
        self._model = model
        self._device = next(model.parameters()).device
        self.vocab_size = vocab_size
        self.num_blocks, self.block_tokens = spec.num_blocks, spec.block_tokens
        self._spec = spec
        self.kv_block_bytes = kv_block_bytes
        self._cache = PagedCache(spec.num_blocks * spec.block_tokens, KV_DTYPES[spec.kv_dtype])
        self._logits = np.empty((0, vocab_size), dtype=np.float32)
        self._slots: dict[int, Slot] = {}
        self._adapters = TorchAdapters(model)
        self._num_opened = 0

    def forward(self, batch: StepBatch) -> None:
        """Run the model once; see `Executor`. ValueError where an id is out of range or a page is missing."""
        _check(batch, self.vocab_size, self._spec)
        self._adapters.begin(batch)
        step = PagedStep(batch, self._cache, self.block_tokens, self._device)
        self._logits = run(self._model, batch, step, self._device)[:, : self.vocab_size]

    def logits(self) -> Float32:
        """A copy of the last step's logits, float32 [R, V]."""
        return self._logits.copy()

    def pack_adapter(self, updates: Updates) -> PackedAdapter:
        """An adapter on the model's device; see `lora.TakesAdapters`."""
        return self._adapters.pack(updates)

    def attach_adapter(self, packed: PackedAdapter) -> int:
        """The lowest free slot; see `lora.TakesAdapters`."""
        assert isinstance(packed, TorchAdapter), "packed by pack_adapter"
        return self._adapters.attach(packed)

    def detach_adapter(self, slot: int) -> None:
        """Forget it."""
        self._adapters.detach(slot)

    def open_slot(self, params: SamplerParams, prompt: Int32) -> int:
        """A sampler slot for one sample."""
        check_params(params, self.vocab_size)
        self._num_opened += 1
        self._slots[self._num_opened] = Slot(params, prompt.tolist())
        return self._num_opened

    def close_slot(self, slot: int) -> None:
        """Free the slot. ValueError if it is not open."""
        if self._slots.pop(slot, None) is None:
            raise ValueError(f"slot {slot} is not open")

    def sample(self, rows: Int32, slots: Int32, temperatures: Float32, forced: Int32) -> Int32:
        """Choose one token per slot by the keyed sampler; see `Executor`."""
        found = np.empty(len(rows), dtype=np.int32)
        for i, (row, number) in enumerate(zip(rows.tolist(), slots.tolist(), strict=True)):
            slot = self._slots[number]
            token = int(forced[i])
            if token < 0:
                token = choose(self._logits[row], slot, float(temperatures[i]))
            slot.output.append(token)
            found[i] = token
        return found

    def logprobs(self, rows: Int32, tokens: Int32, top_k: int) -> TokenLogprobs:
        """Raw log-probability of `tokens[i]` in logits row `rows[i]`, and the `top_k` likeliest, ties by lower id."""
        chosen = np.empty(len(rows), np.float32)
        top_ids = np.empty((len(rows), top_k), np.int32)
        top = np.empty((len(rows), top_k), np.float32)
        for i, (row, token) in enumerate(zip(rows.tolist(), tokens.tolist(), strict=True)):
            z = self._logits[row].astype(np.float64)
            log_total = z.max() + np.log(np.exp(z - z.max()).sum())
            chosen[i] = z[token] - log_total
            if top_k:
                least = np.partition(z, -top_k)[-top_k]
                near = np.flatnonzero(z >= least)
                order = near[np.lexsort((near, -z[near]))][:top_k]
                top_ids[i], top[i] = order, z[order] - log_total
        return TokenLogprobs(chosen, top_ids, top)


def run(model: Any, batch: StepBatch, step: PagedStep, device: torch.device) -> Float32:
    """Logits of the wanted rows, float32 [R, columns of the head]."""
    with torch.inference_mode():
        found = model(
            input_ids=torch.from_numpy(batch.tokens.astype(np.int64))[None].to(device),
            position_ids=torch.from_numpy(batch.positions.astype(np.int64))[None].to(device),
            logits_to_keep=torch.from_numpy(batch.logit_rows.astype(np.int64)).to(device),
            use_cache=False,
            temper_step=step,
        )
        logits: Float32 = found.logits[0].float().cpu().numpy()
    return logits


def measure_block_bytes(model: Any, block_tokens: int, kv_dtype: str) -> int:
    """Bytes of one page over all layers, found by running one token through the model."""
    cache = PagedCache(block_tokens, KV_DTYPES[kv_dtype])
    zero = np.zeros(1, dtype=np.int32)
    batch = StepBatch(zero, zero, np.array([0, 1], np.int32), zero + 1, zero[None], zero)
    device = next(model.parameters()).device
    run(model, batch, PagedStep(batch, cache, block_tokens, device), device)
    return cache.num_bytes


def _check(batch: StepBatch, vocab_size: int, spec: ExecutorSpec) -> None:
    num = len(batch.tokens)
    if num > spec.max_step_tokens:
        raise ValueError(f"a step may have {spec.max_step_tokens} tokens, this one has {num}")
    if num and not (int(batch.tokens.min()) >= 0 and int(batch.tokens.max()) < vocab_size):
        raise ValueError(f"token ids must lie between 0 and {vocab_size - 1}")
    pages = -(-batch.context_lens // spec.block_tokens)
    if len(pages) and int(pages.max()) > batch.block_tables.shape[1]:
        raise ValueError("a sequence is longer than its block table")
    used = batch.block_tables[np.arange(batch.block_tables.shape[1])[None] < pages[:, None]]
    if len(used) and not (int(used.min()) >= 0 and int(used.max()) < spec.num_blocks):
        raise ValueError(f"a page is missing or outside the cache of {spec.num_blocks}")
