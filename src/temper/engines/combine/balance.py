"""Several engines that answer alike, as one: the least busy takes the next request.

Work is counted in tokens still to come, so one long answer weighs as much as many short ones. Prompts with the same
beginning go to the same child, where its prefix cache is warm, unless that child is much busier than the others. A
child that keeps failing is left alone by its circuit breaker; one that did not start is started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

from temper.engines.base import Engine
from temper.engines.combine.breaker import Breaker
from temper.engines.combine.choosing import Attempt, Chooser
from temper.engines.combine.combinator import Child, numbered
from temper.engines.combine.prompts import CHARS_PER_TOKEN, USUAL_OUTPUT_TOKENS, num_chars, opening
from temper.engines.kinds import Context, build_section
from temper.errors import DeadlineExceeded, Draining, OutOfMemory, QueueFull, TemperError
from temper.profile import schema
from temper.profile.schema import Section
from temper.types import Delta, Request, Usage

PREFILL_WEIGHT = 0.1
"""Work of a prompt token against that of a generated one."""


class _Load:
    """What one child has to do, and whether it can."""

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.work = 0.0
        """Tokens still to come, prompt tokens at their weight."""
        self.num_open = 0
        self.num_requests = 0
        self.num_failures = 0


class _Attempt(Attempt):
    __slots__ = ("_left", "_load", "_trial")

    def __init__(self, child: Child, request: Request, load: _Load) -> None:
        super().__init__(child, request)
        self._load = load
        self._trial = load.breaker.sent()
        expected = request.limits.max_tokens or USUAL_OUTPUT_TOKENS
        self._left = expected * request.n + PREFILL_WEIGHT * num_chars(request) / CHARS_PER_TOKEN
        load.work += self._left
        load.num_open += 1
        load.num_requests += 1

    def spoke(self) -> None:
        self._load.breaker.succeeded()
        self._trial = False

    def said(self, event: Delta) -> None:
        step = min(self._left, len(event.token_ids) or 1)
        self._left -= step
        self._load.work -= step

    def ended(self, usage: Usage | None, error: TemperError | None) -> None:
        load = self._load
        load.num_open -= 1
        load.work = load.work - self._left if load.num_open else 0.0
        if usage is not None:
            load.breaker.succeeded()
        elif error is None or not error.retryable or isinstance(error, QueueFull | DeadlineExceeded | OutOfMemory):
            load.breaker.undecided(trial=self._trial)  # the caller's doing, or a busy day: no sign of a broken engine
        else:
            load.num_failures += 1
            load.breaker.failed(trial=self._trial)


class BalanceEngine(Chooser):
    """See the module."""

    name = "balance"

    def __init__(
        self,
        config: schema.BalanceEngine,
        context: Context | None = None,
        *,
        engines: Sequence[Engine] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`engines` stand in for those that `config` describes; `clock` gives seconds for the circuit breakers."""
        built = engines or [build_section(section, _given(context)) for section in config.children]
        super().__init__(numbered(list(zip(config.children, built, strict=True))))
        self._clock = clock
        self._turn = 0
        self._take(config)
        self._loads = {
            child.name: _Load(Breaker(config.failures_to_open, config.open_s, config.max_open_s, clock))
            for child in self.children
        }

    def _parts(self, section: Section) -> list[tuple[str, Section]] | None:
        if not isinstance(section, schema.BalanceEngine) or len(section.children) != len(self.children):
            return None
        return [(child.name, part) for child, part in zip(self.children, section.children, strict=True)]

    def _take(self, section: Section) -> None:
        assert isinstance(section, schema.BalanceEngine)
        self._config = section
        self.retries, self.silence_s = section.retries, section.silence_s

    def _choose(self, request: Request, tried: Sequence[str]) -> Child | None:
        found = [child for child in self.children if child.name in self._up and child.name not in tried]
        found = [child for child in found if self._loads[child.name].breaker.lets_pass]
        # Health may be a moment old: where nobody claims to be well, those that live are asked all the same.
        healths = [(child, child.engine.health()) for child in found]
        found = [child for child, health in healths if health.ready] or [c for c, health in healths if health.alive]
        if not found:
            return None
        self._turn += 1
        in_turn = found[self._turn % len(found) :] + found[: self._turn % len(found)]
        least = min(in_turn, key=lambda child: self._loads[child.name].work)
        if self._config.prefix_affinity and len(found) > 1:
            home = self._home(request, found)
            if self._loads[home.name].work <= self._loads[least.name].work + self._config.slack_tokens:
                return home
        return least

    def _home(self, request: Request, among: Sequence[Child]) -> Child:
        """The child that prompts of this beginning belong to; when one leaves, only its own prompts move."""
        key = opening(request, self._config.prefix_chars).encode(errors="replace")
        return max(among, key=lambda child: blake2b(key, digest_size=8, key=child.name.encode()).digest())

    def _attempt(self, child: Child, request: Request) -> Attempt:
        return _Attempt(child, request, self._loads[child.name])

    def _nobody(self) -> Draining:
        waits = [self._loads[child.name].breaker.wait_s for child in self.children if child.name in self._up]
        reasons = "; ".join(self._reason(child) for child in self.children)
        return Draining(f"no engine can take this request: {reasons}", retry_after_s=min(waits, default=1.0) or 1.0)

    def _reason(self, child: Child) -> str:
        if child.name not in self._up:
            return f"{child.name} has not started"
        state, health = self._loads[child.name].breaker.state, child.engine.health()
        if state != "closed":
            return f"the circuit of {child.name} is {state}"
        return f"{child.name}: {health.reason or ('failed just now' if health.ready else 'not ready')}"

    def _details(self) -> Mapping[str, object]:
        return {
            name: {
                "circuit": load.breaker.state,
                "circuit_openings_total": load.breaker.openings_total,
                "outstanding_tokens": round(load.work),
                "open_requests": load.num_open,
                "requests_total": load.num_requests,
                "failures_total": load.num_failures,
            }
            for name, load in self._loads.items()
        }


def _given(context: Context | None) -> Context:
    assert context is not None, "an engine is built either from a context or from engines"
    return context
