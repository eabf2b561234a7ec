"""From OTEL_* variables to spans at a collector."""

from __future__ import annotations

import builtins
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from temper.api.environment import Place, place
from temper.api.spans import exported

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environ", "exporter"),
    [
        ({}, None),
        ({ENDPOINT: "http://127.0.0.1:4318"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://127.0.0.1:4318"}, None),
        ({"OTEL_SDK_DISABLED": "true", ENDPOINT: "http://127.0.0.1:4318"}, None),
        ({"OTEL_SERVICE_NAME": "x"}, None),
    ],
)
def test_an_exporter_is_made_when_one_is_asked_for(environ, exporter):
    assert place(environ).span_exporter == exporter


class Collector(HTTPServer):
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[tuple[str, ExportTraceServiceRequest]] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Collector)
        self.server.taken.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def here(exporter: str) -> Place:
    return Place(home=Path(), cache_dir=Path(), span_exporter=exporter)


def test_spans_arrive_at_a_collector(collector: Collector, monkeypatch):
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{collector.server_port}")
    with exported(here("otlp")) as tracer:
        assert tracer is not None
        tracer.start_span("hello").end()
    ((path, sent),) = collector.taken  # all are sent by the end
    assert path == "/v1/traces"
    resource = {one.key: one.value.string_value for one in sent.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "temper"
    assert sent.resource_spans[0].scope_spans[0].spans[0].name == "hello"


def test_the_service_s_name_is_the_owner_s(collector: Collector, monkeypatch):
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    with exported(here("otlp")) as tracer:
        tracer.start_span("hello").end()
    attributes = collector.taken[0][1].resource_spans[0].resource.attributes
    assert {one.key: one.value.string_value for one in attributes}["service.name"] == "mine"


def test_without_the_extra_there_is_a_warning_and_no_crash(monkeypatch, caplog):
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with caplog.at_level(logging.WARNING), exported(here("otlp")) as tracer:
        assert tracer is None
    assert "pip install 'temper-llm[otel]'" in caplog.text


def test_an_unknown_exporter_is_named(caplog):
    with caplog.at_level(logging.WARNING), exported(here("zipkin")) as tracer:
        assert tracer is None
    assert "'zipkin': known are otlp, console" in caplog.text
