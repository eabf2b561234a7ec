"""Errors as clients meet them: status, envelope, what to do next, and streams that break."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from temper.errors import (
    ContextTooLong,
    DeadlineExceeded,
    Draining,
    EngineDied,
    EngineFailure,
    Invalid,
    NotFound,
    OutOfMemory,
    QueueFull,
    Rejected,
    TemperError,
    Unsupported,
)
from temper.server.errors import BodyTooLarge, Unauthorized, envelope, error_response, status_of
from tests.server.conftest import Running, fake, running

ASK = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (Invalid, 400),
        (Unsupported, 400),
        (ContextTooLong, 400),
        (NotFound, 404),
        (Unauthorized, 401),
        (BodyTooLarge, 413),
        (QueueFull, 429),
        (Rejected, 503),
        (Draining, 503),
        (EngineFailure, 500),
        (EngineDied, 503),
        (DeadlineExceeded, 504),
        (OutOfMemory, 500),
        (TemperError, 500),
    ],
)
def test_every_error_has_a_status(kind: type[TemperError], status: int):
    error = kind("what happened", param="field", hint="what to do")
    assert status_of(error) == status
    inner = envelope(error)["error"]
    assert inner["message"] == "what happened (what to do)"
    assert (inner["param"], inner["code"]) == ("field", kind.code)
    assert inner["type"].endswith("_error")
    headers = error_response(error).headers
    assert headers["x-should-retry"] == ("true" if error.retryable else "false")
    assert ("retry-after" in headers) == isinstance(error, Rejected)


async def test_a_full_line(client: openai.AsyncOpenAI):
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="error-429", messages=ASK)
    assert caught.value.code == "queue_full"
    assert caught.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_byte_has_its_status(client: openai.AsyncOpenAI, stream: bool):
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="error-500", messages=ASK, stream=stream)
    assert caught.value.status_code == 500
    assert caught.value.code == "engine_failure"


async def test_an_unknown_model(client: openai.AsyncOpenAI):
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="nobody", messages=ASK)
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


async def test_a_prompt_that_is_too_long(client: openai.AsyncOpenAI):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.completions.create(model="echo", prompt="word " * 9000)
    assert (caught.value.param, caught.value.code) == ("prompt", "context_length_exceeded")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("model", ["cut", "crash"])
async def test_a_stream_that_breaks_says_so_and_never_done(server: Running, path: str, model: str):
    body = {"model": model, "stream": True}
    body |= {"messages": ASK} if "chat" in path else {"prompt": "x"}
    async with server.http as http:
        answer = await http.post(path, json=body)
    assert answer.status_code == 200
    *chunks, last, rest = answer.text.split("\n\n")
    assert rest == ""
    assert "[DONE]" not in answer.text
    assert json.loads(last.removeprefix("data: "))["error"]["code"].startswith("engine_")
    said = [json.loads(chunk.removeprefix("data: "))["choices"][0] for chunk in chunks]
    assert all(choice["finish_reason"] is None for choice in said)
    assert '" 3"' in answer.text


async def test_the_client_library_sees_the_break(client: openai.AsyncOpenAI):
    with pytest.raises(openai.APIError):
        async for _ in await client.chat.completions.create(model="cut", messages=ASK, stream=True):
            pass


async def test_one_broken_prompt_fails_the_whole_request(client: openai.AsyncOpenAI, server: Running):
    with pytest.raises(openai.BadRequestError):
        await client.completions.create(model="count", prompt=["fine", "word " * 9000], max_tokens=5)
    assert server.state.stats()["count"].num_running == 0


async def test_a_fault_of_ours_tells_nothing_of_its_insides(monkeypatch: pytest.MonkeyPatch):
    engine = fake("echo")

    def broken(request: object) -> object:
        raise ZeroDivisionError("secret inside")

    monkeypatch.setattr(engine, "_check", broken)
    async with running(engine) as server, server.http as http:
        for stream in (False, True):
            answer = await http.post("/v1/chat/completions", json={"messages": ASK, "stream": stream})
            assert answer.status_code == 500
            assert "secret" not in answer.text
            assert answer.json()["error"]["code"] == "internal_error"
        metrics = (await http.get("/metrics")).text
    assert 'temper:request_errors_total{code="internal_error",model_name="fake"} 2.0' in metrics


async def test_unknown_paths_and_methods_have_the_envelope(server: Running):
    async with server.http as http:
        missing: httpx.Response = await http.get("/v1/nothing")
        method = await http.get("/v1/chat/completions")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "not_found"
    assert method.status_code == 405
    assert "error" in method.json()
    assert method.headers["allow"] == "POST"
