"""A span for each request, in OpenTelemetry's words: a server span with `queue`, `prefill` and `decode` below it.

Names are those of the semantic conventions (HTTP, and `gen_ai.*`). A `traceparent` that the caller sends is taken over,
so that a request is one trace through all servers. No text of a prompt or an answer is ever in a span. The tracer comes
from the composition root, which alone knows whether spans are wanted and where they go.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from temper.errors import TemperError
from temper.types import Done, Event, Failed, Finished, Request, Timings

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

OPERATIONS: Final = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion"}
"""Paths whose requests get a span, and what `gen_ai.operation.name` says of them."""
PROVIDER: Final = "temper"
KEY: Final = "temper.span"
"""Where the ASGI scope holds the `RequestSpan`."""
SERVER_ERRORS: Final = 500


class SpanLayer:
    """An ASGI layer around the app and its door: a span begins before anything is refused and ends with the answer."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with a span where one is due."""
        if scope["type"] != "http" or scope["path"] not in OPERATIONS:
            await self._app(scope, receive, send)
            return
        span = RequestSpan(self._tracer, scope)
        scope[KEY] = span

        async def seen(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.answered(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, seen)
        except BaseException as error:
            span.failed(type(error).__name__)
            raise
        finally:
            span.end()


class RequestSpan:
    """The server span of one HTTP request. Times are taken from the engine's own, in `Done`."""

    def __init__(self, tracer: Tracer, scope: Scope) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        headers, path = Headers(scope=scope), scope["path"]
        self._tracer = tracer
        self._span: Span = tracer.start_span(
            f"{scope['method']} {path}",
            context=TraceContextTextMapPropagator().extract(dict(headers)),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": scope["method"],
                "http.route": path,
                "url.path": path,
                "url.scheme": scope.get("scheme", "http"),
                "gen_ai.operation.name": OPERATIONS[path],
                "gen_ai.provider.name": PROVIDER,
            },
        )
        self._reasons: list[str] = []
        self._usage: dict[str, int] = {}

    def asked(self, model: str, requests: Sequence[Request]) -> None:
        """What was asked for is known: of its sampling, what the conventions have names for."""
        first = requests[0]
        sampling = first.sampling
        wanted = {
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
            "gen_ai.response.id": first.id,
            "gen_ai.request.max_tokens": first.limits.max_tokens,
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.request.top_k": sampling.top_k,
            "gen_ai.request.seed": sampling.seed,
            "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
            "gen_ai.request.presence_penalty": sampling.presence_penalty,
            "gen_ai.request.choice.count": first.n if first.n != 1 else None,
        }
        for name, value in wanted.items():
            if value is not None:
                self._span.set_attribute(name, value)

    def watch(self) -> RequestWatch:
        """Watches the events of one of its requests, from now on."""
        return RequestWatch(self)

    def answered(self, status: int) -> None:
        """The head of the answer was sent."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= SERVER_ERRORS:
            self.failed(str(status))

    def failed(self, kind: str) -> None:
        """It came to no good end. `kind`: an error's code, a status, an exception's name."""
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """No more will come."""
        for name, count in self._usage.items():
            self._span.set_attribute(name, count)
        if self._reasons:
            self._span.set_attribute("gen_ai.response.finish_reasons", self._reasons)
        self._span.end()

    # -- what its watches call -------------------------------------------------------------------------

    def finished(self, reason: str) -> None:
        """A sample ended."""
        self._reasons.append(reason)

    def done(self, began_ns: int, event: Done) -> None:
        """A request that came at `began_ns` (nanoseconds since 1970) is complete."""
        usage = event.usage
        self._count("gen_ai.usage.input_tokens", usage.prompt_tokens)
        self._count("gen_ai.usage.output_tokens", usage.completion_tokens)
        self._count("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens)
        self._count("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens)
        if event.timings != Timings():  # else the engine tells none
            self._children(began_ns, event)

    def _count(self, name: str, count: int) -> None:
        self._usage[name] = self._usage.get(name, 0) + count

    def _children(self, began_ns: int, event: Done) -> None:
        from opentelemetry.trace import set_span_in_context

        above, times, usage = set_span_in_context(self._span), event.timings, event.usage
        attributes: dict[str, dict[str, Any]] = {
            "queue": {"temper.preemptions": times.num_preemptions},
            "prefill": {"gen_ai.usage.input_tokens": usage.prompt_tokens},
            "decode": {"gen_ai.usage.output_tokens": usage.completion_tokens},
        }
        at = began_ns
        for name, seconds in (("queue", times.queue_s), ("prefill", times.prefill_s), ("decode", times.decode_s)):
            child = self._tracer.start_span(name, context=above, start_time=at, attributes=attributes[name])
            at += int(seconds * 1e9)
            child.end(end_time=at)


class RequestWatch:
    """Sees the events of one request; text passes unseen."""

    __slots__ = ("_began_ns", "_span")

    def __init__(self, span: RequestSpan) -> None:
        self._span = span
        self._began_ns = time.time_ns()

    def see(self, event: Event) -> None:
        """Take note of an event that is not text."""
        if isinstance(event, Finished):
            self._span.finished(event.reason)
        elif isinstance(event, Done):
            self._span.done(self._began_ns, event)
        elif isinstance(event, Failed):
            self._span.failed(event.error.code)

    def refused(self, error: TemperError) -> None:
        """The engine did not take it."""
        self._span.failed(error.code)
