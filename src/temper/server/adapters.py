"""LoRA adapters that come and go while the server runs, under vLLM's paths and names.

The door opens these paths for admin keys alone. Which adapters there are, `/v1/models` says: each is a model of its
own whose `parent` is the model that it changes.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from temper.engines.base import Engine
from temper.errors import CheckpointError, Invalid, NotFound
from temper.server import schemas
from temper.server.auth import LOAD_ADAPTER_PATH, UNLOAD_ADAPTER_PATH
from temper.server.errors import ModelNotFound, json_response
from temper.server.limits import read_json
from temper.server.state import Served, served

router = APIRouter(tags=["admin"])


@router.post(LOAD_ADAPTER_PATH, openapi_extra=schemas.documented(schemas.LoadAdapterBody))
async def load_adapter(request: Request) -> Response:
    """Load the adapter in a folder of the server's machine. Requests that run are not disturbed.

    Answers when it is loaded: the next request may name it as its `model`.
    """
    state = served(request)
    body = schemas.check(schemas.LoadAdapterBody, await read_json(request, state.settings))
    name = body.lora_name
    model, engine = _engine(state, body.model)
    if name in state.engines or any(e is not engine and name in e.capabilities().adapters for e in state.distinct()):
        raise Invalid(f"'{name}' is served already, as something else", param="lora_name", hint="choose another name")
    try:
        await engine.load_adapter(name, body.lora_path, replace=body.load_inplace)
    except CheckpointError as error:
        raise Invalid(error.message, param="lora_path", hint=error.hint) from error
    except NotFound as error:
        raise NotFound(error.message, param="lora_path", hint=error.hint) from error
    return json_response({"loaded": name, "parent": model})


@router.post(UNLOAD_ADAPTER_PATH, openapi_extra=schemas.documented(schemas.UnloadAdapterBody))
async def unload_adapter(request: Request) -> Response:
    """Serve an adapter no longer. New requests for it get 404 at once; those that have it end with it.

    Answers when the last of them has ended and its memory is free; who leaves before does not stop that.
    """
    state = served(request)
    body = schemas.check(schemas.UnloadAdapterBody, await read_json(request, state.settings))
    name = body.lora_name
    for model, engine in state.engines.items():
        if name in engine.capabilities().adapters:
            await engine.unload_adapter(name)
            return json_response({"unloaded": name, "parent": model})
    raise ModelNotFound(f"no adapter '{name}' is served here", param="lora_name")


def _engine(state: Served, model: str | None) -> tuple[str, Engine]:
    """The engine that a body names, the first one where it names none."""
    name, engine, adapter = state.find(model)
    if adapter is not None:
        raise Invalid(f"'{model}' is an adapter itself", param="model", hint="name the model that it changes")
    return name, engine
