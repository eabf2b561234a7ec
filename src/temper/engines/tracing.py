"""What an engine tells of its own time while it is traced, as data that crosses processes.

`Engine.start_trace` begins to measure, `Engine.stop_trace` ends it and returns an `EngineTrace`. It knows nothing of
how the figures are judged; that is `measure.trace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_STEPS = 2000
"""Steps that are kept one by one; those after them only count in the sums."""


@dataclass(frozen=True, slots=True)
class EngineTrace:
    """What happened between `start_trace` and `stop_trace`. Times in seconds."""

    window_s: float
    """From start to stop."""
    parts: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """Part of the engine's work → (how often, seconds in all). Those of the step loop, in order: `schedule`, `build`,
    `forward`, `sample`, `publish` (with `detokenize` in it), `hand_over`; beside the loop: `tokenize`."""
    loop_cpu_s: float | None = None
    """CPU seconds of the thread that takes requests in and hands events out."""
    pid: int = 0
    """The process that computed."""
    num_steps: int = 0
    prefill_tokens: int = 0
    """Prompt tokens computed: those found in the prefix cache are not."""
    decode_tokens: int = 0
    ops: tuple[Mapping[str, Any], ...] | None = None
    """`kernels.executor.OpTime`s as plain data; None: the executor does not time its ops."""
    steps: tuple[Mapping[str, Any], ...] = ()
    """The first `MOST_STEPS` steps: `began_s` after the start of the trace, `prefill_tokens`, `decode_tokens`, and the
    seconds of each part of the loop by name."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """The engine's resolved values: threads, ISA, bytes of weights, …"""
