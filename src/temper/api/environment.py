"""What the machine's owner decided by environment variables; read here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from temper.engines.kinds import Context
    from temper.engines.openai import Endpoint


@dataclass(frozen=True, slots=True)
class Place:
    """What the machine's owner decided by environment variables: folders, the hub, secrets, the log level."""

    home: Path
    """State: versions, studies, chat history."""
    cache_dir: Path
    """Downloads; everything in it can be fetched again."""
    hub_endpoint: str | None = None
    """Another Hugging Face hub than the public one."""
    api_key: str | None = None
    """What clients of our server must show, and what our own client shows."""
    admin_key: str | None = None
    """What an operator must show to change a running server."""
    store_url: str | None = None
    """Where versions and rollouts are kept, when not in a file below `home`."""
    span_exporter: str | None = None
    """Where OpenTelemetry's variables want spans of requests to go; None: nowhere."""
    log_level: str = "warning"


def place(environ: Mapping[str, str] | None = None, home: Path | None = None) -> Place:
    """Read the environment: XDG_DATA_HOME, XDG_CACHE_HOME, HF_ENDPOINT, TEMPER_API_KEY, TEMPER_ADMIN_KEY,
    TEMPER_STORE, TEMPER_LOG_LEVEL.

    OTEL_* say whether spans of requests are exported (`spans`); the OpenTelemetry SDK reads the rest of them itself.
    huggingface_hub reads its own HF_* variables (HF_TOKEN among them) when it is asked for a model.
    """
    given = os.environ if environ is None else environ
    user = Path(given.get("HOME") or Path.home())
    return Place(
        home=home or Path(given.get("XDG_DATA_HOME") or user / ".local" / "share") / "temper",
        cache_dir=Path(given.get("XDG_CACHE_HOME") or user / ".cache") / "temper",
        hub_endpoint=given.get("HF_ENDPOINT") or None,
        api_key=given.get("TEMPER_API_KEY") or None,
        admin_key=given.get("TEMPER_ADMIN_KEY") or None,
        store_url=given.get("TEMPER_STORE") or None,
        span_exporter=wanted_exporter(given),
        log_level=(given.get("TEMPER_LOG_LEVEL") or "warning").lower(),
    )


def wanted_exporter(environ: Mapping[str, str]) -> str | None:
    """The exporter that OTEL_* variables ask for: by name, or OTLP where an endpoint is given."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    named = environ.get("OTEL_TRACES_EXPORTER", "").partition(",")[0].strip().lower()
    if named:
        return None if named == "none" else named
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return "otlp" if any(environ.get(name) for name in endpoints) else None


def context(where: Place) -> Context:
    """What engines may know of the place."""
    from temper.engines.kinds import Context

    def endpoint(name: str) -> Endpoint:
        from temper.engines.openai import endpoint as endpoints

        return endpoints.find(name, where.home, os.environ)

    return Context(where.cache_dir, where.home, where.hub_endpoint, endpoint, dict(os.environ))
