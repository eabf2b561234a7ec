"""GenAI's continuous batching pipeline in the place that scheduler, cache and executor have in our own loop.

Takes sequences, gives their new tokens step by step, and forgets them when told. GenAI knows no
priorities, so it gets only as many sequences as it computes at once, best-ranked first. It belongs to
the step thread.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import openvino
import openvino_genai as genai

from temper.engines.native.sequence import Sequence
from temper.errors import EngineFailure
from temper.kernels.executor import SamplerParams
from temper.kernels.sampling_reference import GREEDY_BELOW, keyed_bits

BLOCK_TOKENS: Final = 32
"""Tokens in a page of GenAI's cache on a CPU."""


@dataclass(slots=True, eq=False)
class _Running:
    """A sequence that GenAI has, and what it was sent with."""

    sequence: Sequence
    handle: Any
    num_echoed: int = 0
    """Tokens that come back first because the prompt's log-probabilities were asked for."""
    echoed: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step gave one sequence."""

    sequence: Sequence
    tokens: list[int]
    logprobs: list[float]
    prompt_logprobs: list[float] | None = None
    """One for each prompt token, where they were asked for; the first means nothing."""


class GenaiPipeline:
    """One pipeline and the sequences that stand before it and in it."""

    def __init__(self, pipeline: Any, vocab_size: int, num_blocks: int, block_bytes: int, max_sequences: int) -> None:
        self._pipeline = pipeline
        self.vocab_size = vocab_size
        self.num_blocks = num_blocks
        self.block_tokens = BLOCK_TOKENS
        self.kv_block_bytes = block_bytes
        self._max_sequences = max_sequences
        self._waiting: list[Sequence] = []
        self._running: dict[Sequence, _Running] = {}
        self._num_sent = 0

    @property
    def num_waiting(self) -> int:
        """Sequences that GenAI has not got yet."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Sequences that GenAI has."""
        return len(self._running)

    @property
    def used_bytes(self) -> int:
        """Pages that running sequences need; GenAI's own figure lags behind and counts what is only kept."""
        return sum(-(-s.num_tokens // BLOCK_TOKENS) for s in tuple(self._running)) * self.kv_block_bytes

    def add(self, sequences: Iterable[Sequence]) -> None:
        """Put sequences in line."""
        for sequence in sequences:
            insort(self._waiting, sequence, key=lambda s: s.rank)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is."""
        found = self._running.pop(sequence, None)
        if found is None:
            self._waiting = [other for other in self._waiting if other is not sequence]
        else:
            found.handle.cancel()

    def commit(self, sequence: Sequence) -> None:
        """Its tokens so far are computed."""
        sequence.num_computed = sequence.num_tokens

    def resend(self, sequence: Sequence) -> None:
        """Go on from the tokens that the sequence has now, whatever GenAI had chosen."""
        self.remove(sequence)
        insort(self._waiting, sequence, key=lambda s: s.rank)

    def step(self) -> Iterator[Step]:
        """Run one step and yield what it gave. The caller may remove and resend sequences in between.

        Raises:
            EngineFailure: GenAI gave a sequence up.
        """
        while self._waiting and len(self._running) < self._max_sequences:
            self._send(self._waiting.pop(0))
        if not self._running:
            return
        self._pipeline.step()
        for running in list(self._running.values()):
            handle = running.handle
            while running.sequence in self._running and handle.can_read():
                for found in handle.read().values():
                    if step := _unpack(running, list(found.generated_ids), list(found.generated_log_probs)):
                        yield step
            gone = running.sequence in self._running and self._running[running.sequence] is running
            if gone and handle.get_status() == genai.GenerationStatus.IGNORED:
                raise EngineFailure("OpenVINO gave a sequence up: its cache is too small for what runs together",
                                    hint="raise kv.budget_bytes, or lower batching.max_sequences")  # fmt: skip

    def _send(self, sequence: Sequence) -> None:
        tokens = sequence.tokens[: sequence.num_tokens].astype(np.int64)[None]
        config = _config(sequence)
        self._num_sent += 1
        handle = self._pipeline.add_request(self._num_sent, openvino.Tensor(tokens), config)
        num_echoed = sequence.num_tokens if config.echo else 0
        self._running[sequence] = _Running(sequence, handle, num_echoed)


def _unpack(running: _Running, tokens: list[int], logprobs: list[float]) -> Step | None:
    """One reading, without the prompt that comes back in front of the first."""
    prompt_logprobs = None
    if running.num_echoed:
        running.echoed += logprobs[: running.num_echoed]
        tokens, logprobs = tokens[running.num_echoed :], logprobs[running.num_echoed :]
        running.num_echoed, prompt_logprobs = 0, running.echoed
    return Step(running.sequence, tokens, logprobs, prompt_logprobs) if tokens or prompt_logprobs else None


def _config(sequence: Sequence) -> Any:
    """GenAI's settings for a sequence. Ends are our own affair, but for the tokens that it must not choose yet."""
    job, output = sequence.job, sequence.output
    assert output is not None, "every sequence here generates"
    params: SamplerParams = job.params[sequence.index]
    num_generated = sequence.num_tokens - sequence.num_prompt
    config = genai.GenerationConfig()
    config.max_new_tokens = max(1, sequence.max_tokens - num_generated)
    config.ignore_eos = True
    if params.min_tokens > num_generated and params.stop_token_ids:
        config.min_new_tokens = params.min_tokens - num_generated
        config.stop_token_ids = set(params.stop_token_ids)
        config.set_eos_token_id(params.stop_token_ids[0])
    config.apply_chat_template = False
    if job.logprobs is not None:
        config.logprobs = 1
        config.echo = job.row_sink is not None and sequence.index == 0 and not job.prompt_done
    config.repetition_penalty = params.repetition_penalty
    config.presence_penalty = params.presence_penalty
    config.frequency_penalty = params.frequency_penalty
    if output.temperature >= GREEDY_BELOW:
        config.do_sample = True
        config.temperature = output.temperature
        config.top_p = params.top_p
        if params.top_k:
            config.top_k = params.top_k
        config.min_p = params.min_p
        config.rng_seed = keyed_bits(params.seed, params.sample_index, num_generated) & 0x7FFFFFFF
    return config
