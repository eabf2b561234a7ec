"""Timing of the engine's own work, for `temper trace`. Off at first, and then next to free.

While it is off, what it hands out does nothing: `begin` gives a lap that does not look at the clock, `timed` and
`watch` give back what they got. It decides nothing and knows no request.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

from temper.engines.native.output import StreamDecoder
from temper.engines.native.prompts import Model
from temper.engines.native.sequence import Sequence as Sample
from temper.engines.tracing import MOST_STEPS, EngineTrace
from temper.kernels.executor import TimesOps

P = ParamSpec("P")
T = TypeVar("T")


class Lap(Protocol):
    """Says that a part of the step is over; the part that schedules tells what it chose."""

    def __call__(self, part: str, chosen: Sequence[Sample] = ()) -> None:
        """The part that began with the lap before is over."""


def _no_lap(part: str, chosen: Sequence[Sample] = ()) -> None:
    pass


class Tracer:
    """Sums up laps. `begin` and its laps belong to the step thread; `timed` calls may run on any."""

    def __init__(self) -> None:
        self._is_on = False
        self._lock = threading.Lock()
        self._forget()

    # -- what the engine calls -------------------------------------------------------------------------

    def begin(self) -> Lap:
        """A step begins."""
        if not self._is_on:
            return _no_lap
        self._last = self._began = time.perf_counter()
        self._step: dict[str, float] = {}
        self._num_prefill = self._num_decode = 0
        return self._lap

    def timed(self, part: str, call: Callable[P, T]) -> Callable[P, T]:
        """`call`, its time counted as `part`."""
        return partial(self._call, part, call) if self._is_on else call

    def watch(self, model: Model) -> Model:
        """`model`, the time of turning its tokens into text counted."""
        return replace(model, decoder=partial(_TimedDecoder, model.decoder, self)) if self._is_on else model

    # -- on and off, on the step thread ----------------------------------------------------------------

    def start(self, model: Model) -> None:
        """Forget what was measured, and measure from now on."""
        self._forget()
        self._is_on = True
        if isinstance(model.executor, TimesOps):
            model.executor.reset_op_times()
            model.executor.set_timing(True)

    def stop(self, model: Model, loop_cpu_s: float) -> EngineTrace:
        """What was measured since `start`; nothing is measured any more."""
        self._is_on = False
        ops = None
        if isinstance(model.executor, TimesOps):
            model.executor.set_timing(False)
            ops = tuple(asdict(op) for op in model.executor.op_times())
        return EngineTrace(
            window_s=time.perf_counter() - self._origin,
            parts=dict(self._parts),
            loop_cpu_s=loop_cpu_s,
            pid=os.getpid(),
            num_steps=self._num_steps,
            prefill_tokens=self._prefill_tokens,
            decode_tokens=self._decode_tokens,
            ops=ops,
            steps=tuple(self._steps),
            details=model.details,
        )

    # -- inside ----------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._origin = self._last = self._began = time.perf_counter()
        self._parts: dict[str, tuple[int, float]] = {}
        self._steps: list[dict[str, float]] = []
        self._step = {}
        self._num_steps = self._prefill_tokens = self._decode_tokens = 0
        self._num_prefill = self._num_decode = 0

    def _lap(self, part: str, chosen: Sequence[Sample] = ()) -> None:
        now = time.perf_counter()
        self._step[part] = now - self._last
        self.add(part, now - self._last)
        for sample in chosen:
            if sample.num_new > 1:
                self._num_prefill += sample.num_new
            else:
                self._num_decode += 1
        if part == "hand_over":
            self._end()
        self._last = time.perf_counter()

    def _end(self) -> None:
        """A step that computed something is counted, and kept while there are few."""
        if "forward" not in self._step:
            return
        self._num_steps += 1
        self._prefill_tokens += self._num_prefill
        self._decode_tokens += self._num_decode
        if len(self._steps) < MOST_STEPS:
            tokens = {"prefill_tokens": self._num_prefill, "decode_tokens": self._num_decode}
            self._steps.append({"began_s": self._began - self._origin, **tokens, **self._step})

    def add(self, part: str, seconds: float) -> None:
        """Count `seconds` of a part."""
        with self._lock:
            count, total = self._parts.get(part, (0, 0.0))
            self._parts[part] = count + 1, total + seconds

    def _call(self, part: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        began = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            self.add(part, time.perf_counter() - began)


class _TimedDecoder:
    """A decoder whose time counts as `detokenize`."""

    def __init__(self, make: Callable[[], StreamDecoder], tracer: Tracer) -> None:
        inner = make()
        self.push: Callable[[Sequence[int]], str] = tracer.timed("detokenize", inner.push)
        self.flush: Callable[[], str] = tracer.timed("detokenize", inner.flush)
