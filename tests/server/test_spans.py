"""Spans of requests over a real server, taken by OpenTelemetry's in-memory exporter."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.server.conftest import fake, running

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "a secret that nobody may see"
BODY = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 4, "temperature": 0.5, "seed": 7}


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def http(spans: InMemorySpanExporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    engines = {name: fake(name, ttft_ms=20, itl_ms=2) for name in ("words", "cut", "error-500", "slow")}
    async with running(engines, tracer=provider.get_tracer("test")) as server, server.http as client:
        yield client


async def of(spans: InMemorySpanExporter) -> tuple[ReadableSpan, dict[str, ReadableSpan]]:
    """The server span, which ends a moment after the client has the answer, and its children by name."""
    for _ in range(500):
        if any(span.kind is SpanKind.SERVER for span in spans.get_finished_spans()):
            break
        await asyncio.sleep(0.01)
    found = spans.get_finished_spans()
    (server,) = [span for span in found if span.kind is SpanKind.SERVER]
    return server, {span.name: span for span in found if span is not server}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_a_span_with_its_parts(http: httpx.AsyncClient, spans: InMemorySpanExporter, stream: bool):
    answer = await http.post(
        "/v1/chat/completions", json={**BODY, "model": "words", "stream": stream}, headers={"traceparent": PARENT}
    )
    assert answer.status_code == 200
    server, parts = await of(spans)
    assert server.name == "POST /v1/chat/completions"
    assert format(server.context.trace_id, "032x") == PARENT.split("-")[1]
    assert server.parent is not None
    assert format(server.parent.span_id, "016x") == PARENT.split("-")[2]
    told = dict(server.attributes or {})
    assert told.pop("gen_ai.response.id").startswith("chatcmpl-")
    assert told.pop("gen_ai.usage.input_tokens") > 0
    assert told == {
        "http.request.method": "POST", "http.route": "/v1/chat/completions", "url.path": "/v1/chat/completions",
        "url.scheme": "http", "http.response.status_code": 200,
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "temper", "gen_ai.request.model": "words",
        "gen_ai.response.model": "words", "gen_ai.request.max_tokens": 4, "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7, "gen_ai.usage.output_tokens": 4, "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.reasoning.output_tokens": 0, "gen_ai.response.finish_reasons": ("length",),
    }  # fmt: skip
    assert list(parts) == ["queue", "prefill", "decode"]
    assert all(span.parent.span_id == server.context.span_id for span in parts.values())
    assert parts["queue"].end_time == parts["prefill"].start_time
    assert parts["prefill"].end_time == parts["decode"].start_time
    assert server.start_time <= parts["queue"].start_time
    assert parts["decode"].attributes["gen_ai.usage.output_tokens"] == 4
    assert SECRET not in json.dumps([span.to_json() for span in spans.get_finished_spans()])


async def test_several_prompts_are_one_span_with_the_sum(http: httpx.AsyncClient, spans: InMemorySpanExporter):
    body = {"model": "words", "prompt": ["a", "b", "c"], "max_tokens": 2}
    assert (await http.post("/v1/completions", json=body)).status_code == 200
    server, _ = await of(spans)
    assert server.attributes["gen_ai.operation.name"] == "text_completion"
    assert server.attributes["gen_ai.usage.output_tokens"] == 6
    assert len(server.attributes["gen_ai.response.finish_reasons"]) == 3
    assert [span.name for span in spans.get_finished_spans()].count("decode") == 3


@pytest.mark.parametrize(
    ("model", "status", "kind"), [("error-500", 500, "500"), ("nobody", 404, None), ("cut", 500, "500")]
)
async def test_what_fails_says_so(
    http: httpx.AsyncClient, spans: InMemorySpanExporter, model: str, status: int, kind: str | None
):
    answer = await http.post("/v1/chat/completions", json={**BODY, "model": model, "max_tokens": 100})
    assert answer.status_code == status
    server, parts = await of(spans)
    assert server.attributes["http.response.status_code"] == status
    assert server.attributes.get("error.type") == kind
    assert (server.status.status_code is StatusCode.ERROR) == (status >= 500)
    assert parts == {}


async def test_a_stream_that_breaks_is_an_error_though_it_began_well(
    http: httpx.AsyncClient, spans: InMemorySpanExporter
):
    await http.post("/v1/chat/completions", json={**BODY, "model": "cut", "max_tokens": 100, "stream": True})
    server, _ = await of(spans)
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["error.type"] == "engine_failure"
    assert server.status.status_code is StatusCode.ERROR


async def test_operators_paths_have_no_spans(http: httpx.AsyncClient, spans: InMemorySpanExporter):
    for path in ("/health", "/metrics", "/v1/models"):
        await http.get(path)
    assert spans.get_finished_spans() == ()
