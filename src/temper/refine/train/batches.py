"""Which examples a step reads, in which rows, and how rows become tensors.

The order of an epoch is keyed by seed and epoch, never streamed: any step can be had without those before it, which
is what makes a resumed run exact. Rows are laid side by side without padding; `attention` keeps examples apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from temper.refine.train.examples import Example

Row = tuple[int, ...]
"""Examples, by number, that stand in one row."""

OPEN_ROWS: Final = 32
"""Rows that are filled at a time when packing: enough to fill them well, few enough to keep the order random."""


@dataclass(frozen=True, slots=True)
class Batch:
    """N tokens of several examples side by side, and the R of them whose next token is learned."""

    token_ids: Tensor
    """int64 [1, N]"""
    position_ids: Tensor
    """int64 [1, N], from 0 in each example."""
    starts: tuple[int, ...]
    """Where each example begins, and N at the end."""
    rows: Tensor
    """int64 [R] positions from which a target is predicted."""
    targets: Tensor
    """int64 [R]"""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """[R, …] each: what the examples carry beside their targets."""

    @property
    def num_targets(self) -> int:
        """Tokens that are learned."""
        return len(self.targets)

    @property
    def num_tokens(self) -> int:
        """Tokens that are read."""
        return int(self.token_ids.shape[1])


def collate(examples: Sequence[Example]) -> Batch:
    """Examples side by side."""
    lengths = [len(example) for example in examples]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    learned = [np.flatnonzero(example.learned) for example in examples]
    rows = np.concatenate([at + start - 1 for at, start in zip(learned, starts, strict=False)])
    token_ids = np.concatenate([example.token_ids for example in examples]).astype(np.int64)
    names = examples[0].extras
    return Batch(
        token_ids=torch.from_numpy(token_ids)[None],
        position_ids=torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None],
        starts=tuple(int(start) for start in starts),
        rows=torch.from_numpy(rows.astype(np.int64)),
        targets=torch.from_numpy(token_ids[rows + 1]),
        extras={name: torch.from_numpy(np.concatenate([e.extras[name] for e in examples])) for name in names},
    )


@dataclass(frozen=True)
class Order:
    """The rows of all epochs."""

    lengths: Sequence[int]
    """Tokens of each example."""
    seed: int
    packing: bool
    context_length: int

    def epoch(self, number: int) -> list[Row]:
        """The rows of one epoch, shuffled; each example stands in one of them."""
        if number not in self._epochs:
            order = np.random.default_rng([self.seed, number]).permutation(len(self.lengths))
            rows: list[Row] = self._packed(order) if self.packing else [(int(at),) for at in order]
            if len(self._epochs) > 1:
                self._epochs.clear()  # two at most are ever asked for in turns
            self._epochs[number] = rows
        return self._epochs[number]

    def num_steps(self, epochs: int, batch_size: int) -> int:
        """Steps that read `epochs` epochs; the last one may be smaller."""
        if not self.packing:
            return -(-len(self.lengths) * epochs // batch_size)
        return -(-sum(len(self.epoch(number)) for number in range(epochs)) // batch_size)

    def step(self, number: int, batch_size: int, epochs: int | None = None) -> list[Row]:
        """The rows of step `number` (from 0): batches follow each other through the epochs, up to `epochs`."""
        begin, epoch = number * batch_size, 0
        found: list[Row] = []
        while epochs is None or epoch < epochs:
            rows = self.epoch(epoch) if self.packing or begin < len(self.lengths) else None
            size = len(self.lengths) if rows is None else len(rows)
            if rows is not None and begin < size:
                found += rows[begin : begin + batch_size - len(found)]
                begin = size
                if len(found) == batch_size:
                    break
            begin -= size
            epoch += 1
        return found

    def _packed(self, order: np.ndarray[Any, Any]) -> list[Row]:
        """First fit over the latest open rows."""
        closed: list[Row] = []
        open_rows: list[tuple[list[int], int]] = []
        for at in order:
            length = int(self.lengths[at])
            for number, (row, left) in enumerate(open_rows):
                if length <= left:
                    row.append(int(at))
                    open_rows[number] = (row, left - length)
                    break
            else:
                if len(open_rows) == OPEN_ROWS:
                    fullest = min(range(OPEN_ROWS), key=lambda number: open_rows[number][1])
                    closed.append(tuple(open_rows.pop(fullest)[0]))
                open_rows.append(([int(at)], self.context_length - length))
        return closed + [tuple(row) for row, _ in open_rows]

    @cached_property
    def _epochs(self) -> dict[int, list[Row]]:
        return {}


def micro_batches(rows: Sequence[Row], size: int) -> list[list[int]]:
    """The examples of each micro-batch of a step: `size` rows together."""
    return [[at for row in rows[begin : begin + size] for at in row] for begin in range(0, len(rows), size)]
