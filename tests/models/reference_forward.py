"""Logits of a checkpoint by the numpy reference, for tests that compare them with transformers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from temper.kernels.executor import ExecutorSpec, StepBatch
from temper.kernels.reference import ReferenceExecutor
from temper.models.checkpoint import Checkpoint


def reference_logits(checkpoint: Checkpoint, ids: list[int]) -> NDArray[np.float32]:
    """Float32 [len(ids), vocab] of one sequence computed in one step, with an exact cache."""
    config, count = checkpoint.config, len(ids)
    num_blocks = count // 16 + 1
    spec = ExecutorSpec(config.num_layers, config.kv_width, num_blocks, 16, "f32", count, count)
    executor = ReferenceExecutor(checkpoint.program(), checkpoint.tensors, spec)
    places = np.arange(count, dtype=np.int32)
    executor.forward(
        StepBatch(
            tokens=np.array(ids, np.int32),
            positions=places,
            q_starts=np.array([0, count], np.int32),
            context_lens=np.array([count], np.int32),
            block_tables=np.arange(num_blocks, dtype=np.int32)[None],
            logit_rows=places,
        )
    )
    return executor.logits()
