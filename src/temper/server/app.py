"""The app: routes, the door before them, errors after them, and the engines' life around it all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from temper.engines.base import Engine
from temper.errors import Invalid, TemperError
from temper.server import adapters, admin, routes, schemas
from temper.server.auth import Door
from temper.server.errors import error_response, internal_error, json_response
from temper.server.settings import ServerSettings
from temper.server.spans import SpanLayer
from temper.server.state import Served

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)


def create_app(
    engines: Mapping[str, Engine] | Engine,
    *,
    extensions: Sequence[APIRouter] = (),
    companions: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    settings: ServerSettings | None = None,
    tracer: Tracer | None = None,
) -> FastAPI:
    """An app that serves `engines` by name; a single engine goes by the name it gives itself.

    The app starts the engines when it starts and stops them when it ends. `extensions` are routers
    beside the API (the dashboard's); they find everything through `temper.server.served(request)`. `companions` run
    from when the engines have started until the app ends, and are cancelled then.
    With a `tracer` of OpenTelemetry's each request for text gets a span.
    """
    settings = settings or ServerSettings()
    state = Served(engines, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await state.start()
        except Exception as error:
            state.failure = error  # the ASGI server only learns that it failed
            raise
        running = [asyncio.create_task(companion()) for companion in companions]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await state.stop()

    app = FastAPI(title="Temper", version="1", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.temper = state
    app.include_router(routes.generation)
    app.include_router(routes.router)
    app.include_router(admin.router)
    app.include_router(adapters.router)
    for extension in extensions:
        app.include_router(extension)
    app.add_exception_handler(TemperError, _on_temper_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_parameter_error)
    app.add_exception_handler(Exception, _on_fault)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(Door, settings=settings)
    if tracer is not None:
        app.add_middleware(SpanLayer, tracer=tracer)
    app.openapi = _describer(app)  # type: ignore[method-assign]
    return app


async def _on_temper_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, TemperError)
    return error_response(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Routes that are not there, methods that are not offered: in the same envelope as everything else."""
    assert isinstance(error, HTTPException)
    body = {
        "error": {
            "message": f"{request.method} {request.url.path}: {error.detail}",
            "type": "invalid_request_error",
            "param": None,
            "code": "not_found" if error.status_code == 404 else "invalid_request",
        }
    }
    return json_response(body, error.status_code, dict(error.headers or {}))


async def _on_parameter_error(request: Request, error: Exception) -> Response:
    """A path or query parameter of an extension breaks its rule."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = ".".join(str(step) for step in first["loc"][1:]) or str(first["loc"][0])
    return error_response(Invalid(f"'{param}': {first['msg']}", param=param))


async def _on_fault(request: Request, error: Exception) -> Response:
    return error_response(internal_error())


def _describer(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """OpenAPI with the bodies that the endpoints read themselves."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = get_openapi(title=app.title, version=app.version, routes=app.routes)
            _, bodies = models_json_schema(
                [(kind, "validation") for kind in schemas.BODIES], ref_template="#/components/schemas/{model}"
            )
            described.setdefault("components", {}).setdefault("schemas", {}).update(bodies["$defs"])
            app.openapi_schema = described
        return app.openapi_schema

    return describe
