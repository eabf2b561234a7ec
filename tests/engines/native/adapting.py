"""A fake engine that takes adapters: an adapter is a text, which shifts every letter that the model says.

A folder's content is what stands in the file `text` of it. The cache remembers whose tokens it holds, so that a
block that another adapter wrote is never read unnoticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np

from temper.engines.native.engine import NativeEngine
from temper.errors import CheckpointError, NotFound
from temper.kernels.executor import StepBatch
from tests.engines.native.fakes import FakeExecutor, FakeTemplate, make_engine


@dataclass(frozen=True)
class Packed:
    tag: int
    num_bytes: int = 1000


class AdaptingExecutor(FakeExecutor):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.attached: dict[int, int] = {}
        self.owners = np.zeros_like(self.cache, dtype=np.int64)
        self.row_tags: list[int] = []
        self.mixed = 0
        """Steps that had several adapters in them."""

    def pack_adapter(self, updates: Mapping[str, Any]) -> Packed:
        if "wrong" in updates["text"]:
            raise ValueError("this one is wrong")
        return Packed(crc32(updates["text"].encode()))

    def attach_adapter(self, packed: Packed) -> int:
        slot = next(i for i in range(len(self.attached) + 1) if i not in self.attached)
        self.attached[slot] = packed.tag
        return slot

    def detach_adapter(self, slot: int) -> None:
        del self.attached[slot]

    def forward(self, batch: StepBatch) -> None:
        count, bt = len(batch.context_lens), self.spec.block_tokens
        slots = [-1] * count if batch.adapters is None else batch.adapters.tolist()
        assert slots == sorted(slots), "sequences of one adapter are side by side"
        self.mixed += len(set(slots)) > 1
        tags = [0 if slot < 0 else self.attached[slot] for slot in slots]
        row_of = np.repeat(np.arange(count), np.diff(batch.q_starts))
        for i in range(count):
            positions = batch.positions[batch.q_starts[i] : batch.q_starts[i + 1]]
            self.owners[batch.block_tables[i, positions // bt], positions % bt] = tags[i]
            pages = batch.block_tables[i, : -(-int(batch.context_lens[i]) // bt)]
            seen = self.owners[pages].reshape(-1)[: batch.context_lens[i]]
            assert (seen == tags[i]).all(), "a block of another adapter was read"
        self.row_tags = [tags[row_of[row]] for row in batch.logit_rows]
        super().forward(replace(batch, adapters=None))

    def sample(self, rows, slots, temperatures, forced) -> np.ndarray:
        tokens = super().sample(rows, slots, temperatures, forced)
        for i, slot in enumerate(slots.tolist()):
            if forced[i] < 0 and self.script is None:
                tokens[i] = 97 + (tokens[i] - 97 + self.row_tags[rows[i]] % 26) % 26
                self.slots[slot].history[-1] = int(tokens[i])
        return tokens


def write(folder: Path, text: str) -> str:
    """An adapter's folder."""
    folder.mkdir(exist_ok=True)
    (folder / "text").write_text(text)
    return str(folder)


def read(source: str, max_rank: int, max_bytes: int) -> Any:
    path = Path(source) / "text"
    if not path.is_file():
        raise NotFound(f"there is no adapter folder '{source}'")
    text = path.read_text()
    if "broken" in text:
        raise CheckpointError("this adapter is broken", hint="mend it")
    if len(text) > max_rank:
        raise CheckpointError(f"rank {len(text)}, at most {max_rank}")
    return SimpleNamespace(updates={"text": text}, version=hashlib.sha256(text.encode()).hexdigest(), rank=len(text),
                           template=FakeTemplate(thinks="think" in text))  # fmt: skip


def adapting_engine(**fields: Any) -> tuple[NativeEngine, AdaptingExecutor]:
    engine, executor = make_engine(executor_kind=AdaptingExecutor, read_adapter=read, **fields)
    assert isinstance(executor, AdaptingExecutor)
    return engine, executor


def open_adapting(section: Any, context: object) -> NativeEngine:
    """For a worker process."""
    most = section.batching.max_step_tokens
    engine, _ = adapting_engine(
        step_s=0.003, check=False, num_blocks=256, context_length=2048, max_step_tokens=most, max_logit_rows=96
    )
    engine._section = section
    return engine
