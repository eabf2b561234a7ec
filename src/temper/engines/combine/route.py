"""Each request to the engine that suits it: by rules, else by a cost model that is measured as it runs.

"Short to CPU, long to GPU" is not written down here as a threshold. Every route's prefill and decode rates are fitted
to its own answers, the length of the answer is foreseen from the limit and from past answers, and who is expected to
be done first (or is cheapest within the target) gets the request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from temper.engines.base import Capabilities, Engine
from temper.engines.combine.choosing import Attempt, Chooser
from temper.engines.combine.combinator import Child
from temper.engines.combine.cost import CostModel, Mean
from temper.engines.combine.figures import all_adapters, meet, widest_context
from temper.engines.combine.prompts import CHARS_PER_TOKEN, USUAL_OUTPUT_TOKENS, last_said, num_chars
from temper.engines.kinds import Context, build_section
from temper.errors import Draining, TemperError
from temper.profile import schema
from temper.profile.schema import RouteRule, Section
from temper.types import Delta, Request, Started, Usage

LEARNING = 4
"""Answers of a route before its figures are believed."""


class _Route:
    """What is known of one route."""

    def __init__(self, price: float) -> None:
        self.price = price
        self.cost = CostModel()
        self.num_open = 0
        self.num_requests = 0
        self.num_failures = 0
        self.last_turn = 0
        """When it was last chosen, counted in requests."""


class _Attempt(Attempt):
    __slots__ = ("_begin", "_beside", "_engine", "_first", "_fresh_tokens", "_route")

    def __init__(self, child: Child, request: Request, route: _Route, engine: RouteEngine) -> None:
        super().__init__(child, request)
        self._route, self._engine = route, engine
        self._begin, self._first = engine.clock(), 0.0
        self._fresh_tokens = 0
        self._beside = route.num_open
        route.num_open += 1
        route.num_requests += 1

    def started(self, event: Started) -> None:
        self._fresh_tokens = event.prompt_tokens - event.cached_tokens
        chars = num_chars(self.request)
        if chars and event.prompt_tokens:
            self._engine.chars_per_token.see(chars / event.prompt_tokens)

    def spoke(self) -> None:
        self._first = self._engine.clock()

    def said(self, event: Delta) -> None:
        """Nothing is learned from a single piece."""

    def ended(self, usage: Usage | None, error: TemperError | None) -> None:
        route = self._route
        route.num_open -= 1
        route.num_failures += error is not None
        if usage is None or not self._first:
            return
        now = self._engine.clock()
        tokens = usage.completion_tokens // self.request.n
        route.cost.see(self._fresh_tokens, self._first - self._begin, tokens, now - self._first, self._beside)
        self._engine.output_of(self.request).see(tokens)


class RouteEngine(Chooser):
    """See the module."""

    name = "route"

    def __init__(
        self,
        config: schema.RouteEngine,
        context: Context | None = None,
        *,
        engines: Sequence[Engine] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`engines` stand in for those that `config` describes; `clock` gives seconds for the cost model."""
        if engines is None:
            assert context is not None, "an engine is built either from a context or from engines"
            engines = [build_section(route.engine, context) for route in config.routes]
        routes = zip(config.routes, engines, strict=True)
        super().__init__([Child(route.name, route.engine, engine) for route, engine in routes])
        self.clock = clock
        self.chars_per_token = Mean(CHARS_PER_TOKEN)
        self._outputs = {True: Mean(USUAL_OUTPUT_TOKENS), False: Mean(USUAL_OUTPUT_TOKENS)}
        self._routes = {route.name: _Route(route.price) for route in config.routes}
        self._turn = 0
        self._take(config)

    def _parts(self, section: Section) -> list[tuple[str, Section]] | None:
        if not isinstance(section, schema.RouteEngine):
            return None
        return [(route.name, route.engine) for route in section.routes]

    def _take(self, section: Section) -> None:
        assert isinstance(section, schema.RouteEngine)
        self._config = section
        self.retries, self.silence_s = section.retries, section.silence_s
        for route in section.routes:
            self._routes[route.name].price = route.price

    def _combined(self, cans: Sequence[Capabilities]) -> Capabilities:
        return all_adapters(widest_context(meet(cans, alike=False) if len(cans) > 1 else cans[0], cans), cans)

    # -- choosing --------------------------------------------------------------------------------------

    def _given(self, request: Request) -> Request:
        """With the adapter of the rule that decides, where the caller named none."""
        if request.adapter is not None or not any(rule.adapter for rule in self._config.rules):
            return request
        rule = self._rule(request, self.prompt_tokens(request), self.output_tokens(request))
        return request if rule is None or rule.adapter is None else replace(request, adapter=rule.adapter)

    def _rule(self, request: Request, prompt: float, output: float) -> RouteRule | None:
        """The first rule that holds."""
        return next((rule for rule in self._config.rules if self._holds(rule, request, prompt, output)), None)

    def _choose(self, request: Request, tried: Sequence[str]) -> Child | None:
        prompt, output = self.prompt_tokens(request), self.output_tokens(request)
        found = [child for child in self.children if child.name in self._up and child.name not in tried]
        if request.adapter is not None:
            found = [child for child in found if request.adapter in child.engine.capabilities().adapters]
        ready = [child for child in found if child.engine.health().ready]
        found = [c for c in ready or found if _fits(c.engine.capabilities(), prompt, request)] or ready or found
        if not found:
            return None
        self._turn += 1
        by_name = {child.name: child for child in found}
        wanted = self._config.otherwise
        if not tried:
            rule = self._rule(request, prompt, output)
            wanted = wanted if rule is None else rule.to
        chosen = by_name.get(wanted)
        if chosen is None:
            chosen = self._least_busy(found) if wanted == "load" else self._cheapest(found, prompt, output)
        self._routes[chosen.name].last_turn = self._turn
        return chosen

    def _least_busy(self, found: Sequence[Child]) -> Child:
        return min(found, key=lambda child: (self._routes[child.name].num_open, self._routes[child.name].last_turn))

    def _cheapest(self, found: Sequence[Child], prompt: float, output: float) -> Child:
        """By the cost model: who is expected to be done first, or the cheapest of those within the target."""
        unknown = [child for child in found if self._routes[child.name].cost.first_token.num_seen < LEARNING]
        explores = self._config.explore > 0 and self._turn % max(2, round(1 / self._config.explore)) == 0
        if unknown or explores:
            return min(unknown or found, key=lambda child: self._routes[child.name].last_turn)
        seconds = {
            c.name: self._routes[c.name].cost.expect_s(prompt, output, self._routes[c.name].num_open) for c in found
        }
        target = self._config.target_s
        in_time = [child for child in found if target is not None and seconds[child.name] <= target]
        if in_time:
            return min(
                in_time, key=lambda child: (seconds[child.name] * self._routes[child.name].price, seconds[child.name])
            )
        return min(found, key=lambda child: seconds[child.name])

    def prompt_tokens(self, request: Request) -> float:
        """The prompt's length, estimated with the tokens per character seen so far."""
        if request.prompt is not None and not isinstance(request.prompt, str):
            return len(request.prompt)
        return num_chars(request) / self.chars_per_token.value

    def output_tokens(self, request: Request) -> float:
        """The answer's expected length: as past ones were, within the limit; the limit itself until there were any."""
        usual, most = self.output_of(request), request.limits.max_tokens
        if most is None:
            return usual.value
        return min(usual.value, most) if usual.num_seen else most

    def output_of(self, request: Request) -> Mean:
        """The running mean of answers to such requests: those that may think are much longer."""
        return self._outputs[request.messages is not None and request.thinking.enabled is not False]

    def _holds(self, rule: RouteRule, request: Request, prompt: float, output: float) -> bool:
        said = last_said(request).casefold() if rule.contains else ""
        return all(
            (
                rule.min_prompt_tokens is None or prompt >= rule.min_prompt_tokens,
                rule.max_prompt_tokens is None or prompt <= rule.max_prompt_tokens,
                rule.min_output_tokens is None or output >= rule.min_output_tokens,
                rule.max_output_tokens is None or output <= rule.max_output_tokens,
                rule.max_running is None or rule.to not in self._routes
                or self._routes[rule.to].num_open <= rule.max_running,
                not rule.tenants or request.tenant in rule.tenants,
                not rule.contains or any(text.casefold() in said for text in rule.contains),
                rule.has_tools is None or rule.has_tools == bool(request.tools),
                rule.has_format is None or rule.has_format == (request.response_format is not None),
                rule.thinks is None or rule.thinks == request.thinking.enabled,
            )
        )  # fmt: skip

    def _attempt(self, child: Child, request: Request) -> Attempt:
        return _Attempt(child, request, self._routes[child.name], self)

    def _nobody(self) -> Draining:
        reasons = (f"{c.name}: {c.engine.health().reason or 'failed just now'}" for c in self.children)
        return Draining(f"no route can take this request: {'; '.join(reasons)}", retry_after_s=1.0)

    def _details(self) -> Mapping[str, object]:
        return {
            name: {
                **route.cost.shown(),
                "open_requests": route.num_open,
                "requests_total": route.num_requests,
                "failures_total": route.num_failures,
            }
            for name, route in self._routes.items()
        }


def _fits(can: Capabilities, prompt: float, request: Request) -> bool:
    """Whether the context surely holds the prompt; the estimate may be a fifth off."""
    return can.context_length is None or 0.8 * prompt + (request.limits.max_tokens or 0) <= can.context_length
