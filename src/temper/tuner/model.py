"""An analytic model of memory and time, calibrated on the first trials and honest about its error.

Memory: weights in the precision asked for, the KV cache of what the workload keeps open, and a workspace. Time: a
step reads all weights once (bandwidth) and computes for every sequence in it (arithmetic). Two constants are unknown
before anything ran, the machine's bandwidth and its speed at this arithmetic; they are fitted to measured throughput.

It prunes what cannot fit before an engine is started, and what it predicts to be far behind, as far as its own error
allows. It knows the native and the torch engine; of servers of other makes it says nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from temper.measure.workload.schema import Closed, Synthetic, Workload
from temper.profile.schema import NativeEngine, TorchEngine
from temper.tuner.evaluate import Block
from temper.tuner.space import Point, Space

WORKSPACE_BYTES = 128 << 20
"""Interpreter, tokenizer, buffers of a step."""
FEWEST_TRIALS = 6
"""Measured points before the model of time says anything."""
FAR = 4.0
"""A point is far behind when it is predicted to be, by so many times the model's own error."""
LEAST_ERROR = 0.05
BYTES_A_WEIGHT: Mapping[str, float] = {"int4": 0.625, "int8": 1.0625, "bf16": 2.0, "fp32": 4.0}
"""q4_1, q8_0, bf16, as `kernels.weights` writes them."""
WORK: Mapping[str, float] = {"none": 1.0, "head": 1.2, "head+qkv": 1.3, "all": 2.0}
"""Arithmetic of a step by `two_digits`: a second digit up to doubles the products of the layers that have one."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a checkpoint is, for the model."""

    num_weights: int
    stored_bytes: int
    num_layers: int
    kv_width: int
    """Keys, or values, of one token in one layer."""


class Model:
    """Predicts for the points of one space under one workload. `facts` by branch; None: nothing is known of it."""

    def __init__(self, space: Space, workload: Workload, facts: Mapping[str, Facts | None], memory_bytes: int) -> None:
        self._space, self._workload, self._facts = space, workload, dict(facts)
        self._memory_bytes = memory_bytes
        self._seen: dict[Point, float] = {}
        self._memory: list[tuple[float, float]] = []
        self._constants: tuple[float, float] | None = None
        self._error = math.inf

    def memory(self, point: Point) -> float | None:
        """Predicted resident bytes of the engine at `point`; None where nothing is known."""
        found = self._shape(point)
        if found is None:
            return None
        facts, engine, weight_bytes = found
        each = 2 * facts.num_layers * facts.kv_width * (4 if engine.kv.dtype == "f32" else 2)
        open_tokens = min(self._users(), engine.batching.max_sequences) * self._tokens()
        kv_bytes = open_tokens * each
        if engine.kv.budget_bytes != "auto":
            kv_bytes = min(kv_bytes, engine.kv.budget_bytes)
        return self._correction() * (weight_bytes + kv_bytes + WORKSPACE_BYTES)

    def unfit(self, point: Point) -> str | None:
        """Why `point` need not be started: it cannot fit into memory. None: it may."""
        needed = self.memory(point)
        if needed is None or needed <= self._memory_bytes:
            return None
        return f"needs about {needed / 1e9:.1f} GB, there are {self._memory_bytes / 1e9:.1f} GB"

    def learn(self, point: Point, block: Block) -> None:
        """Take a measured block in."""
        predicted, rss = self.memory(point), block.figures.get("rss_bytes")
        if predicted and rss:
            self._memory.append((predicted / self._correction(), rss))
        rate = block.figures.get("output_tokens_per_s")
        if rate and self._step(point) is not None:
            self._seen[point] = rate
            self._fit()

    def gain(self, point: Point) -> tuple[float, float] | None:
        """(predicted log-ratio of throughput to the incumbent's, the model's typical error in it); None: no word."""
        mine, base = self._predicted(point), self._predicted(self._space.incumbent)
        if mine is None or base is None or len(self._seen) < FEWEST_TRIALS:
            return None
        return math.log(mine / base), self._error

    def is_far_behind(self, point: Point, best_gain: float) -> str | None:
        """Why `point` need not be measured: predicted far behind the best. None: it may be worth it."""
        found = self.gain(point)
        if found is None:
            return None
        gain, error = found
        if gain + FAR * max(error, LEAST_ERROR) >= best_gain:
            return None
        return f"predicted {math.expm1(gain):+.0%} against {math.expm1(best_gain):+.0%} of the best (error {error:.0%})"

    def document(self) -> dict[str, Any]:
        """What it came to, for the report."""
        ratios = [abs(math.log(rss / (predicted * self._correction()))) for predicted, rss in self._memory]
        known = self._constants
        return {
            "applies": any(facts is not None for facts in self._facts.values()),
            "points": len(self._seen),
            "time_error": None if not math.isfinite(self._error) else round(self._error, 4),
            "memory_error": round(statistics.median(ratios), 4) if ratios else None,
            "memory_correction": round(self._correction(), 4),
            "bandwidth_bytes_per_s": None if known is None else round(1 / known[0]),
            "weights_per_s": None if known is None else round(1 / known[1]),
        }

    # -- inside ------------------------------------------------------------------------------------------

    def _shape(self, point: Point) -> tuple[Facts, NativeEngine | TorchEngine, float] | None:
        facts = self._facts.get(point.branch)
        if facts is None:
            return None
        engine = self._space.profile(point).engine
        if isinstance(engine, NativeEngine):
            precision: str = engine.compute.precision
        elif isinstance(engine, TorchEngine):
            precision = {"int8": "int8", "nf4": "int4"}.get(engine.compute.quantize, engine.compute.dtype)
        else:
            return None
        each = BYTES_A_WEIGHT.get(precision)
        return facts, engine, facts.stored_bytes if each is None else facts.num_weights * each

    def _step(self, point: Point) -> tuple[float, float, float] | None:
        """(bytes a step reads, weights a step computes with, tokens that it makes)."""
        found = self._shape(point)
        if found is None:
            return None
        facts, engine, weight_bytes = found
        batch = float(min(self._users(), engine.batching.max_sequences))
        digits = engine.compute.two_digits if isinstance(engine, NativeEngine) else "none"
        # Prompts are computed too: so many more tokens of work for each token that comes out.
        work = batch * (1 + self._prompt_tokens() / max(1.0, self._tokens() - self._prompt_tokens()))
        return weight_bytes, facts.num_weights * WORK[digits] * work, batch

    def _predicted(self, point: Point) -> float | None:
        step = self._step(point)
        if step is None or self._constants is None:
            return None
        return step[2] / (step[0] * self._constants[0] + step[1] * self._constants[1])

    def _fit(self) -> None:
        """Two constants by non-negative least squares on seconds a token, relative to what was measured.

        The error is that of each point when it is left out of the fit.
        """
        if len(self._seen) < 3:
            return
        rows = []
        for point, rate in self._seen.items():
            step = self._step(point)
            assert step is not None
            rows.append((step[0] / step[2] * rate, step[1] / step[2] * rate))
        self._constants = _constants(rows)
        errors = []
        for index, row in enumerate(rows):
            rest = _constants(rows[:index] + rows[index + 1 :])
            if rest is not None:
                errors.append(abs(math.log(row[0] * rest[0] + row[1] * rest[1])))
        self._error = statistics.median(errors) if errors else math.inf

    def _correction(self) -> float:
        """What measured memory is of the predicted; 1 before anything was measured."""
        return statistics.median(rss / predicted for predicted, rss in self._memory) if self._memory else 1.0

    def _users(self) -> int:
        arrivals = self._workload.arrivals
        return arrivals.concurrency if isinstance(arrivals, Closed) else 8

    def _tokens(self) -> float:
        content = self._workload.content
        return self._prompt_tokens() + (_typical(content.output_tokens) if isinstance(content, Synthetic) else 256.0)

    def _prompt_tokens(self) -> float:
        content = self._workload.content
        return _typical(content.input_tokens) if isinstance(content, Synthetic) else 512.0


def _constants(rows: list[tuple[float, float]]) -> tuple[float, float] | None:
    """The two non-negative numbers with which every row comes closest to 1."""
    from scipy.optimize import nnls

    scale = [max(row[axis] for row in rows) or 1.0 for axis in (0, 1)]
    found, _ = nnls([[row[0] / scale[0], row[1] / scale[1]] for row in rows], [1.0] * len(rows))
    constants = (max(float(found[0]) / scale[0], 1e-18), max(float(found[1]) / scale[1], 1e-18))
    return constants if found.sum() > 0 else None


def _typical(length: Any) -> float:
    """A distribution's middle, tokens."""
    for name in ("tokens", "mean", "median"):
        if hasattr(length, name):
            return float(getattr(length, name))
    return float(length.low + length.high) / 2
