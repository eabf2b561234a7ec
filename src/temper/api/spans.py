"""Spans of requests, sent where the place wants them.

Everything but the exporter's name (endpoint, headers, sampler, resource) the OpenTelemetry SDK reads from its OTEL_*
variables itself when it is made.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from temper.api.environment import Place

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

EXPORTERS = ("otlp", "console")
EXTRA = "otel"


@contextmanager
def exported(where: Place) -> Iterator[Tracer | None]:
    """A tracer whose spans go where the place says, and are all sent at the end; None where nobody wants them.

    What keeps spans from being sent is a warning and never a reason not to serve.
    """
    if where.span_exporter is None:
        yield None
        return
    if where.span_exporter not in EXPORTERS:
        log.warning("OTEL_TRACES_EXPORTER is '%s': known are %s; no spans", where.span_exporter, ", ".join(EXPORTERS))
        yield None
        return
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = _exporter(where.span_exporter)
    except ImportError:
        log.warning(
            "OTEL_* variables ask for spans, but OpenTelemetry is not here: pip install 'temper-llm[%s]'; no spans",
            EXTRA,
        )
        yield None
        return
    resource = Resource.create()
    if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "temper"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer("temper")
    finally:
        provider.shutdown()


def _exporter(name: str) -> SpanExporter:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
