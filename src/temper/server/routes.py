"""The endpoints. Each one reads a body, asks the engine, and words the answer."""

from __future__ import annotations

import base64
import struct
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import asdict, replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from temper.engines.base import Engine, Health
from temper.errors import Invalid, Unsupported
from temper.server import schemas, translate
from temper.server.answers import Head, chat_answer, completion_answer
from temper.server.calls import Call, ClientLeft, while_connected
from temper.server.errors import ModelNotFound, json_response
from temper.server.limits import read_json
from temper.server.spans import KEY, RequestSpan
from temper.server.state import Served, served
from temper.server.streaming import ChatChunks, CompletionChunks, EventStream, Extras
from temper.types import Request as TemperRequest


class DirectRoute(APIRoute):
    """An endpoint that takes the request itself and gives a response: FastAPI has nothing to work out for it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint, as it is."""
        return self.endpoint


router = APIRouter()
generation = APIRouter(route_class=DirectRoute)

CLIENT_CLOSED = 499
"""What logs say of a client that left (nginx' number); nobody gets to read it."""


# -- generation ------------------------------------------------------------------------------------


@generation.post("/v1/chat/completions", tags=["openai"], openapi_extra=schemas.documented(schemas.ChatBody))
async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    state = served(request)
    body = schemas.check(schemas.ChatBody, await read_json(request, state.settings))
    model, engine, adapter = state.find(body.model)
    head = _head("chatcmpl", model, engine, state)
    asked = translate.chat_request(body, head.id, adapter, _tenant(request), state.settings)
    call = Call(state, model, engine, _with_header_wishes([asked], request, engine), _span(request, model, [asked]))
    if body.stream:
        return EventStream(call, ChatChunks(head, _extras(body)))
    return await _whole(request, call, chat_answer(call, head, token_ids=bool(body.return_token_ids)))


@generation.post("/v1/completions", tags=["openai"], openapi_extra=schemas.documented(schemas.CompletionBody))
async def completions(request: Request) -> Response:
    """Continue one or several prompts."""
    state = served(request)
    body = schemas.check(schemas.CompletionBody, await read_json(request, state.settings))
    model, engine, adapter = state.find(body.model)
    head = _head("cmpl", model, engine, state)
    asked = translate.completion_requests(body, head.id, adapter, _tenant(request), state.settings)
    call = Call(state, model, engine, _with_header_wishes(asked, request, engine), _span(request, model, asked))
    if body.stream:
        chunks = CompletionChunks(head, _extras(body), num_samples=asked[0].n)
        return EventStream(call, chunks)
    return await _whole(request, call, completion_answer(call, head, token_ids=bool(body.return_token_ids)))


async def _whole(request: Request, call: Call, answer: Any) -> Response:
    with call.served.counted():
        try:
            content = await while_connected(request.receive, answer)
            return json_response(content, 200, call.headers)
        except ClientLeft:
            return Response(status_code=CLIENT_CLOSED)


def _with_header_wishes(asked: list[TemperRequest], request: Request, engine: Engine) -> list[TemperRequest]:
    """`Cache-Control: no-store` reaches the response cache, where there is one."""
    if "no-store" not in request.headers.get("cache-control", "") or not engine.capabilities().response_cache:
        return asked
    return [replace(one, extensions={**one.extensions, "cache": "no-store"}) for one in asked]


def _span(request: Request, model: str, asked: list[TemperRequest]) -> RequestSpan | None:
    """The span of the HTTP request, where spans are wanted, now that it is known what was asked."""
    span: RequestSpan | None = request.scope.get(KEY)
    if span is not None:
        span.asked(model, asked)
    return span


def _head(prefix: str, model: str, engine: Engine, state: Served) -> Head:
    return Head(f"{prefix}-{uuid.uuid4().hex}", model, state.fingerprint(model, engine))


def _extras(body: schemas.Generation) -> Extras:
    options = body.stream_options or schemas.StreamOptions()
    return Extras(options.include_usage, options.include_start, bool(body.return_token_ids))


def _tenant(request: Request) -> str | None:
    """Who asks, as the door found out."""
    tenant: str | None = request.scope.get("temper.tenant")
    return tenant


# -- models ----------------------------------------------------------------------------------------


@router.get("/v1/models", tags=["openai"])
async def list_models(request: Request) -> Response:
    """All served models and their adapters."""
    return json_response({"object": "list", "data": _models(served(request))})


@router.get("/v1/models/{model:path}", tags=["openai"])
async def get_model(request: Request, model: str) -> Response:
    """One served model."""
    state = served(request)
    for entry in _models(state):
        if entry["id"] == model:
            return json_response(entry)
    raise ModelNotFound(f"the model '{model}' is not served here", param="model")


def _models(state: Served) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, engine in state.engines.items():
        can = engine.capabilities()
        for id, parent in ((name, None), *((adapter, name) for adapter in can.adapters)):
            found[id] = {
                "id": id,
                "object": "model",
                "created": state.created,
                "owned_by": "temper",
                "root": can.model,
                "parent": parent,
                "max_model_len": can.context_length,
                "capabilities": asdict(can),
            }
    return list(found.values())


# -- text and tokens -------------------------------------------------------------------------------


@router.post("/v1/embeddings", tags=["openai"], openapi_extra=schemas.documented(schemas.EmbeddingsBody))
async def embeddings(request: Request) -> Response:
    """Vectors of texts, from models that make them."""
    state = served(request)
    body = schemas.check(schemas.EmbeddingsBody, await read_json(request, state.settings))
    model, engine, _ = state.find(body.model)
    can = engine.capabilities()
    if not can.embed:
        raise Unsupported(f"the model '{model}' makes no embeddings", param="model", hint="it lacks 'embed'")
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not 1 <= len(texts) <= state.settings.max_prompts:
        raise Invalid(f"{len(texts)} inputs, allowed are 1 to {state.settings.max_prompts}", param="input")
    with state.counted():
        vectors = await engine.embed(texts)
        num_tokens = sum([len(await engine.tokenize(text)) for text in texts]) if can.tokenize else 0
    data = [
        {"object": "embedding", "index": i, "embedding": _vector(row, body.encoding_format)}
        for i, row in enumerate(vectors)
    ]
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return json_response({"object": "list", "model": model, "data": data, "usage": usage})


def _vector(row: Any, encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
    return [float(value) for value in row]


@router.post("/tokenize", tags=["tokens"], openapi_extra=schemas.documented(schemas.TokenizeBody))
async def tokenize(request: Request) -> Response:
    """Token ids of a text or of a conversation, in vLLM's shape."""
    state = served(request)
    body = schemas.check(schemas.TokenizeBody, await read_json(request, state.settings))
    _, engine, _ = state.find(body.model)
    text = translate.messages(body.messages) if body.messages is not None else body.prompt or ""
    ids = await engine.tokenize(text, add_special_tokens=body.add_special_tokens)
    return json_response(
        {
            "count": len(ids),
            "max_model_len": engine.capabilities().context_length,
            "tokens": ids,
            "token_strs": [await engine.detokenize([id]) for id in ids] if body.return_token_strs else None,
        }
    )


@router.get("/tokenizer_info", tags=["tokens"])
async def tokenizer_info(request: Request, model: str | None = None) -> Response:
    """What evaluators that tokenize through `/tokenize` must know of the tokenizer."""
    _, engine, _ = served(request).find(model)
    can = engine.capabilities()
    if not can.tokenize:
        raise Unsupported(f"the model '{can.model}' does not offer 'tokenize'", param="model")
    return json_response({"eos_token": can.eos_token, "model_max_length": can.context_length})


@router.post("/detokenize", tags=["tokens"], openapi_extra=schemas.documented(schemas.DetokenizeBody))
async def detokenize(request: Request) -> Response:
    """The text of token ids, in vLLM's shape."""
    state = served(request)
    body = schemas.check(schemas.DetokenizeBody, await read_json(request, state.settings))
    _, engine, _ = state.find(body.model)
    return json_response({"prompt": await engine.detokenize(body.tokens)})


# -- operators -------------------------------------------------------------------------------------


@router.get("/health", tags=["operators"])
async def health() -> Response:
    """The process is alive."""
    return json_response({"status": "alive"})


@router.get("/ready", tags=["operators"])
async def ready(request: Request) -> Response:
    """Every engine completed a step lately, or could; else 503 with the reasons."""
    state = served(request)
    engines = state.health()
    is_ready = bool(engines) and not state.draining and all(h.ready for h in engines.values())
    status = "draining" if state.draining else "ready" if is_ready else "not ready"
    body = {"status": status, "engines": {name: _health(h) for name, h in engines.items()}}
    return json_response(body, 200 if is_ready else 503)


def _health(found: Health) -> dict[str, Any]:
    inner = {name: _health(child) for name, child in found.engines.items()}
    return {"alive": found.alive, "ready": found.ready, "reason": found.reason, "engines": inner}


@router.get("/metrics", tags=["operators"])
async def metrics(request: Request) -> Response:
    """Prometheus metrics under vLLM's names."""
    body, media_type = served(request).telemetry.exposition()
    return Response(body, media_type=media_type)
