"""How much of the machine the engine takes: threads, cache blocks, context. Numbers in, numbers out.

What the machine has is `temper.machine`'s to find out; which layers and widths a model has is the
caller's to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from temper import machine
from temper.errors import ProfileError

if TYPE_CHECKING:
    from temper.profile.schema import PagedEngine

_KV_SHARE = 0.5
"""Of the memory left beside the weights; the rest is for the page cache, other processes, and growth."""
_KV_MOST_BYTES = 4 << 30
"""`auto` stops here, or at one full context where that is more: a small model must not fill a large machine."""
_WORKSPACE_BYTES = 256 << 20
_LOGIT_ROWS_BESIDE_DECODES = 32
"""Rows for the log-probabilities of prompts in a step whose every sequence decodes."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What `auto` came to."""

    threads: int
    cpus: tuple[int, ...]
    """Where each thread stays; none: wherever the system puts them."""
    num_blocks: int
    context_length: int
    max_logit_rows: int


def resolve(section: PagedEngine, *, model_context: int, kv_block_bytes: int, weight_bytes: int) -> Resources:
    """Fill in what the profile leaves open.

    Raises:
        ProfileError: the context asked for is beyond the model's, or not one block fits the budget.
    """
    kv, batching = section.kv, section.batching
    context = model_context if batching.context_length == "auto" else batching.context_length
    if context > model_context:
        raise ProfileError(
            f"batching.context_length is {context}, the model was made for {model_context}",
            param="batching.context_length",
            hint="lower it",
        )
    if kv.budget_bytes == "auto":
        left = machine.available_memory_bytes() - weight_bytes - _WORKSPACE_BYTES
        one_context = -(-context // kv.block_tokens)
        # More than every sequence at full length is of no use.
        most = min(batching.max_sequences * one_context, max(_KV_MOST_BYTES // kv_block_bytes, one_context))
        num_blocks = min(max(0, int(left * _KV_SHARE)) // kv_block_bytes, most)
    else:
        num_blocks = kv.budget_bytes // kv_block_bytes
    if num_blocks < 1:
        raise ProfileError(
            f"one KV block of {kv.block_tokens} tokens takes {kv_block_bytes} bytes, more than there is for the cache",
            param="kv.budget_bytes",
            hint="raise it, or free memory",
        )
    if batching.context_length == "auto":
        context = min(context, num_blocks * kv.block_tokens)
    compute, cores = section.compute, machine.physical_cpus()
    threads = max(1, min(int(machine.usable_cores()), len(cores))) if compute.threads == "auto" else compute.threads
    pinned = getattr(compute, "pinned", False)
    if pinned and threads > len(cores):
        raise ProfileError(
            f"compute.pinned gives each thread a core of its own: {threads} threads, {len(cores)} cores",
            param="compute.threads",
            hint="fewer threads, or pinned = false",
        )
    return Resources(
        threads=threads,
        cpus=cores[:threads] if pinned else (),
        num_blocks=num_blocks,
        context_length=context,
        max_logit_rows=batching.max_sequences + _LOGIT_ROWS_BESIDE_DECODES,
    )
