"""What runs a program: the interface of the C++ executor and of the numpy reference alike.

One step = `forward` on one ragged batch, then `sample` (and `logprobs`) on the logits it left
behind. Sequences are known to an executor only as rows of a block table and as sampler slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ExecutorSpec:
    """Everything an executor is built for besides its program and tensors."""

    num_layers: int
    kv_width: int
    """Elements of one token's keys in one layer; its values are as many."""
    num_blocks: int
    """Pages in the cache, at least 1."""
    block_tokens: int = 32
    """Tokens in a page. The native executor wants a multiple of 16."""
    kv_dtype: Literal["f16", "f32"] = "f16"
    max_step_tokens: int = 512
    """Most tokens in one `forward`."""
    max_logit_rows: int = 64
    """Most rows whose logits one `forward` may leave behind."""

    @property
    def kv_block_bytes(self) -> int:
        """Bytes of one page: keys and values of `block_tokens` tokens in every layer."""
        return 2 * self.num_layers * self.kv_width * self.block_tokens * (2 if self.kv_dtype == "f16" else 4)


@dataclass(frozen=True, slots=True)
class StepBatch:
    """A ragged batch of S sequences and N tokens: prefill chunks and decodes side by side."""

    tokens: Int32
    """[N] token ids, sequence after sequence."""
    positions: Int32
    """[N] position of each token in its sequence, from 0; those of one sequence are consecutive and end
    at its context length - 1, for a token's cache place is its position."""
    q_starts: Int32
    """[S + 1] where each sequence's tokens begin in `tokens`; the last entry is N."""
    context_lens: Int32
    """[S] tokens in the cache once this step has written its own."""
    block_tables: Int32
    """[S, max blocks] cache block of each page, unused entries -1."""
    logit_rows: Int32
    """[R] rows of `tokens` whose logits are wanted, ascending."""
    adapters: Int32 | None = None
    """[S] slot of each sequence's adapter (`lora.TakesAdapters`), -1 for none; None: no sequence has one. Any order
    is right; sequences of one adapter side by side are fastest."""


@dataclass(frozen=True, slots=True)
class SamplerParams:
    """How one sample chooses its tokens; fixed for its life, except what `sample` takes per step."""

    seed: int
    """Unsigned 64 bit; with `sample_index` and the position it keys the one random number per token."""
    sample_index: int = 0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    """Until so many tokens were generated, `stop_token_ids` cannot be chosen."""
    stop_token_ids: tuple[int, ...] = ()


Phase = Literal["prefill", "decode", "mixed"]
"""What the sequences of a step bring: several tokens each, one each, or some this and some that."""


@dataclass(frozen=True, slots=True)
class OpTime:
    """What the ops of one label took in the steps of one phase, counted from shapes.

    Attention is never `mixed`: its time is divided as the time of its tiles was.
    """

    label: str
    phase: Phase
    calls: int
    ns: int
    """Wall time."""
    bytes: int
    """Of weights, and of cached keys and values: each once a step, activations left out."""
    operations: int
    """Arithmetic of matrices and attention; a multiply-add is two."""
    arithmetic: Literal["int8", "bf16", "f32"] = "f32"
    """What the operations are done in."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Raw log-probabilities (before temperature, penalties, filters) for M (row, token) pairs."""

    logprobs: Float32
    """[M]"""
    top_ids: Int32
    """[M, k] most likely first; ties by lower id."""
    top_logprobs: Float32
    """[M, k]"""


class Executor(Protocol):
    """A loaded model with its cache and its samplers. Not thread-safe; one step at a time."""

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""

    @property
    def num_blocks(self) -> int:
        """Pages in the cache. `kv_block_bytes · num_blocks` never exceeds the budget it was built with."""

    @property
    def block_tokens(self) -> int:
        """Tokens in a page."""

    @property
    def kv_block_bytes(self) -> int:
        """Bytes of one page over all layers."""

    def forward(self, batch: StepBatch) -> None:
        """Run the program once; releases the GIL. Leaves logits [R, V] inside.

        Raises ValueError where the batch breaks a rule (an id out of range, a page missing, too many
        tokens or logit rows); then nothing was written.
        """

    def logits(self) -> Float32:
        """A copy of the logits of the last `forward`, float32 [R, V]."""

    def open_slot(self, params: SamplerParams, prompt: Int32) -> int:
        """A sampler slot for one sample; penalties and n-grams see `prompt` as its history.

        A slot outlives preemption: tokens already chosen stay in its history.
        """

    def close_slot(self, slot: int) -> None:
        """Free the slot. ValueError if it is not open."""

    def sample(self, rows: Int32, slots: Int32, temperatures: Float32, forced: Int32) -> Int32:
        """Choose the next token for `slots[i]` from logits row `rows[i]`; returns token ids [M].

        `temperatures[i]` 0 is greedy. `forced[i]` ≥ 0 is taken whatever the logits say (that is how
        a thinking budget closes `</think>`). Each choice is appended to its slot's history. Slots
        of one call are distinct. Depends on nothing but the row, the slot, and its own key.
        """

    def logprobs(self, rows: Int32, tokens: Int32, top_k: int) -> TokenLogprobs:
        """Raw log-probability of `tokens[i]` in logits row `rows[i]`, and the `top_k` likeliest."""


@runtime_checkable
class TimesOps(Protocol):
    """An executor that can tell where the time of its steps goes."""

    def set_timing(self, on: bool) -> None:
        """Measure the steps to come, or stop."""

    def op_times(self) -> list[OpTime]:
        """What each op that ran took since the last reset."""

    def reset_op_times(self) -> None:
        """Forget what was measured."""
