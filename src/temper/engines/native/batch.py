"""Laying out one step: from scheduled sequences to the flat arrays that the executor reads.

Its arrays are made once and reused, so a `StepBatch` is valid until the next `build`. It copies
numbers and decides nothing.
"""

from __future__ import annotations

import numpy as np

from temper.engines.native.scheduler import StepLimits
from temper.engines.native.sequence import Sequence
from temper.kernels.executor import StepBatch


def by_adapter(sequences: list[Sequence]) -> list[Sequence]:
    """The same sequences, those of one adapter side by side: so the executor computes them together."""
    if any(sequence.job.adapter_slot >= 0 for sequence in sequences):
        sequences.sort(key=lambda sequence: sequence.job.adapter_slot)
    return sequences


class BatchBuilder:
    """Builds step after step; owns the block tables, one row (lane) for each running sequence."""

    def __init__(self, limits: StepLimits, max_blocks: int) -> None:
        self._limits = limits
        self._tables = np.full((limits.max_sequences, max_blocks), -1, dtype=np.int32)
        self._q_starts = np.zeros(limits.max_sequences + 1, dtype=np.int32)
        self._context_lens = np.empty(limits.max_sequences, dtype=np.int32)
        self._lanes = np.empty(limits.max_sequences, dtype=np.int32)
        self._rows = np.empty(limits.max_logit_rows, dtype=np.int32)
        self._adapters = np.empty(limits.max_sequences, dtype=np.int32)
        self._counting = np.arange(0, dtype=np.int32)
        self._reserve(limits.max_step_tokens)
        self.last_rows: list[int] = []
        """For each sequence of the last batch: the logits row of its last token, -1 when it has none."""
        self.num_tokens = 0
        """Tokens in the last batch."""

    def _reserve(self, num_tokens: int) -> None:
        self._tokens = np.empty(num_tokens, dtype=np.int32)
        self._positions = np.empty(num_tokens, dtype=np.int32)

    def build(self, sequences: list[Sequence]) -> StepBatch:
        """The batch of `sequences`, each with its `num_new` next tokens."""
        if self._limits.max_step_tokens > len(self._tokens):  # the limit was raised while running
            self._reserve(self._limits.max_step_tokens)
        tokens, positions = self._tokens, self._positions
        num, num_rows, width, adapted = 0, 0, 1, False
        self.last_rows = last_rows = []
        for i, sequence in enumerate(sequences):
            start, num_new = sequence.num_computed, sequence.num_new
            end = start + num_new
            if num_new == 1:
                tokens[num] = sequence.tokens[start]
                positions[num] = start
            else:
                tokens[num : num + num_new] = sequence.tokens[start:end]
                positions[num : num + num_new] = self._count(end)[start:end]
            num += num_new
            self._q_starts[i + 1] = num
            self._context_lens[i] = end
            self._lanes[i] = sequence.lane
            self._adapters[i] = slot = sequence.job.adapter_slot
            adapted = adapted or slot >= 0
            if sequence.wants_rows:
                self._rows[num_rows : num_rows + num_new] = self._count(num)[num - num_new : num]
                num_rows += num_new
                last_rows.append(num_rows - 1)
            elif end == sequence.num_tokens:
                self._rows[num_rows] = num - 1
                last_rows.append(num_rows)
                num_rows += 1
            else:
                last_rows.append(-1)
            if sequence.num_tabled < len(sequence.blocks):
                self._write_table(sequence)
            width = max(width, len(sequence.blocks))
        size = len(sequences)
        self.num_tokens = num
        return StepBatch(
            tokens=tokens[:num],
            positions=positions[:num],
            q_starts=self._q_starts[: size + 1],
            context_lens=self._context_lens[:size],
            block_tables=self._tables[self._lanes[:size], :width],
            logit_rows=self._rows[:num_rows],
            adapters=self._adapters[:size] if adapted else None,
        )

    def _write_table(self, sequence: Sequence) -> None:
        row = self._tables[sequence.lane]
        if sequence.num_tabled == 0:
            row.fill(-1)  # the lane's former sequence
        row[sequence.num_tabled : len(sequence.blocks)] = sequence.blocks[sequence.num_tabled :]
        sequence.num_tabled = len(sequence.blocks)

    def _count(self, end: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        if end > len(self._counting):
            self._counting = np.arange(2 * end, dtype=np.int32)
        return self._counting
