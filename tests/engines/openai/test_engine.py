"""What remote servers do wrong, and what the engine makes of it. The rest is in tests/conformance."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from temper.asking import ask, collect
from temper.engines.openai import Endpoint, OpenAIEngine
from temper.errors import (
    ContextTooLong,
    DeadlineExceeded,
    Draining,
    EngineDied,
    EngineFailure,
    Invalid,
    NotFound,
    QueueFull,
    Unsupported,
)
from temper.profile import schema
from temper.types import Accepted, Delta, Done, Failed, Finished, Started, ToolDelta
from tests.engines.openai.upstream import CUT, DONE, HANG, answer, chunk, event, head, text, upstream

REQUEST = ask("Once", max_tokens=8)
CHAT = ask([{"role": "user", "content": "hi"}], max_tokens=8)


@asynccontextmanager
async def engine_at(state, **config):
    engine = OpenAIEngine(
        schema.OpenAIEngine(health_every_s=None, **config), endpoint=Endpoint(state.url, "secret-key")
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def events_of(script, request=REQUEST, models=None, **config):
    async with upstream(script, models) as state, engine_at(state, **config) as engine:
        return [event async for event in engine.generate(request)], state


async def test_a_whole_stream():
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    events, state = await events_of(lambda n: [head(), text("a"), text("b"), text("", "length"), usage, DONE])
    assert events == [
        Accepted(), Started(0), Delta(0, "a"), Delta(0, "b"), Finished(0, "length"), events[-1],
    ]  # fmt: skip
    assert isinstance(events[-1], Done)
    assert (events[-1].usage.prompt_tokens, events[-1].usage.completion_tokens) == (3, 2)
    assert "authorization: Bearer secret-key" in state.heads[0]
    assert state.bodies[0] == {
        "model": "m", "prompt": "Once", "max_tokens": 8, "stream": True, "return_token_ids": True,
        "stream_options": {"include_usage": True, "include_start": True},
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_bytes_may_be_split_anywhere(size):
    raw = head() + text("Grüße 🙂") + chunk(b": keep-alive\n\n") + text("!", "stop") + DONE
    events, _ = await events_of(lambda n: [raw[i : i + size] for i in range(0, len(raw), size)])
    assert "".join(e.text for e in events if isinstance(e, Delta)) == "Grüße 🙂!"
    assert isinstance(events[-1], Done)


@pytest.mark.parametrize(
    ("rest", "kind", "said"),
    [
        ([CUT], EngineDied, "closed inside an answer"),
        ([b"0\r\n\r\n"], EngineDied, "cut before the answer was complete"),
        ([DONE], EngineFailure, "ended its stream before the answer was complete"),
        ([event(b"{nonsense")], EngineFailure, "no chunk"),
        ([event({"choices": [{"index": 7, "text": "x"}]})], EngineFailure, "no chunk"),
        ([event({"choices": 3})], EngineFailure, "no chunk"),
        ([b"this is no chunk of HTTP"], EngineDied, "no HTTP"),
        ([event({"error": {"message": "boom", "code": "out_of_memory"}})], EngineFailure, "boom"),
        ([event({"error": {"message": "boom"}})], EngineFailure, "boom"),
        ([HANG], EngineFailure, "nothing came for 0.2 s"),
    ],
)
async def test_a_stream_that_breaks_ends_in_failed(rest, kind, said):
    events, state = await events_of(lambda n: [head(), text("a"), *rest], silence_s=0.2)
    assert [type(e) for e in events[:3]] == [Accepted, Started, Delta]
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, kind)
    assert said in str(events[-1].error)
    assert len(state.bodies) == 1, "what has begun is never repeated"


@pytest.mark.parametrize(
    ("status", "body", "kind", "param"),
    [
        (400, {"error": {"message": "bad", "param": "top_p", "code": None}}, Invalid, "top_p"),
        (400, {"error": {"message": "This model's maximum context length is 4096"}}, ContextTooLong, None),
        (400, {"error": {"message": "no", "code": "unsupported", "param": "tools"}}, Unsupported, "tools"),
        (401, {"error": {"message": "who?"}}, Invalid, "api_key"),
        (404, {"error": {"message": "no model", "code": "model_not_found"}}, NotFound, "model"),
        (422, {"message": "flat"}, Invalid, None),
        (429, {"error": "text alone"}, QueueFull, None),
        (503, b"<html>busy</html>", Draining, None),
    ],
)
async def test_refusals_come_before_any_event(status, body, kind, param):
    with pytest.raises(kind) as caught:
        await events_of(lambda n: answer(status, body, retry_after="7"))
    assert caught.value.param == param
    if status in (429, 503):
        assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(500, None, EngineFailure), (503, "engine_died", EngineDied), (504, None, DeadlineExceeded)],
)
async def test_a_server_that_took_the_work_and_broke_has_failed(status, code, kind):
    events, state = await events_of(lambda n: answer(status, {"error": {"message": "x", "code": code}}))
    assert isinstance(events[0], Accepted)
    assert isinstance(events[1], Failed)
    assert isinstance(events[1].error, kind)
    assert len(state.bodies) == 1


async def test_a_request_is_repeated_only_while_nothing_came_back():
    whole = [head(), text("a", "stop"), DONE]
    events, state = await events_of(lambda n: [CUT] if n < 2 else whole, retries=2)
    assert isinstance(events[-1], Done)
    assert len(state.bodies) == 3
    with pytest.raises(Draining):
        await events_of(lambda n: [CUT], retries=1)
    events, state = await events_of(lambda n: [b"HTTP/1.1 2", CUT] if n == 0 else whole, retries=2)
    assert isinstance(events[-1], Failed)
    assert len(state.bodies) == 1


async def test_nobody_there():
    async with upstream(lambda n: []) as state:
        pass
    engine = OpenAIEngine(schema.OpenAIEngine(), endpoint=Endpoint(state.url))
    with pytest.raises(EngineDied, match="is a server running at"):
        await engine.start()
    assert not engine.health().ready


async def test_connections_are_used_again_and_given_up_when_left():
    async with upstream(lambda n: [head(), text("a", "stop"), DONE]) as state, engine_at(state) as engine:
        for _ in range(5):
            await collect(engine.generate(REQUEST))
        assert state.num_connections == 1

    def script(n):
        return [head(), text("a"), *([text("b"), 0.01] * 500)]

    async with upstream(script) as state, engine_at(state) as engine:
        stream = engine.generate(REQUEST)
        async for each in stream:
            if isinstance(each, Delta):
                break
        await stream.aclose()
        assert engine.stats().num_running == 0
        assert not engine._wire._idle


async def test_a_late_end_of_the_answer_neither_delays_nor_costs_the_connection():
    late = [head(), text("a", "stop"), event(b"[DONE]"), 0.1, b"0\r\n\r\n"]
    async with upstream(lambda n: late) as state, engine_at(state) as engine:
        for _ in range(3):
            await collect(engine.generate(REQUEST))
            assert not engine._wire._idle, "Done waited for the end of the body"
            await asyncio.sleep(0.2)
        assert state.num_connections == 1


async def test_an_answer_let_go_late_does_not_cut_the_next_one_on_its_connection():
    def script(n):
        return [head(), text("a"), 0.1 if n else 0.0, text("b", "stop"), DONE]

    async with upstream(script) as state, engine_at(state) as engine:
        first = engine.generate(REQUEST)
        while not isinstance(await anext(first), Done):
            pass
        second = engine.generate(REQUEST)
        while not isinstance(await anext(second), Delta):
            pass
        await first.aclose()
        assert isinstance([event async for event in second][-1], Done)
        assert state.num_connections == 1  # the list of models came over it too


async def test_a_deadline_is_kept_here():
    request = ask("x", max_tokens=8, deadline_s=0.05)
    for script in ([HANG], [head(), text("a"), HANG]):
        events, _ = await events_of(lambda n, script=script: script, request)
        assert isinstance(events[-1], Failed)
        assert isinstance(events[-1].error, DeadlineExceeded)


async def test_thinking_tools_and_reasons_of_a_chat():
    def delta(given, reason=None):
        return event({"choices": [{"index": 0, "delta": given, "finish_reason": reason}]})

    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a"'}}
    more = {"index": 0, "function": {"arguments": ":1}"}}
    given = ({"role": "assistant", "content": ""}, {"reasoning": "hm"}, {"reasoning_content": "!"}, {"content": "yes"},
             {"tool_calls": [call]}, {"tool_calls": [more]})  # fmt: skip
    script = [head(), *(delta(each) for each in given), delta({}, "tool_calls"), DONE]
    events, _ = await events_of(lambda n: script, CHAT)
    assert events[2:-1] == [
        Delta(0, "hm", channel="reasoning"), Delta(0, "!", channel="reasoning"), Delta(0, "yes"),
        ToolDelta(0, 0, "c1", "f", '{"a"'), ToolDelta(0, 0, None, None, ":1}"), Finished(0, "tool_calls"),
    ]  # fmt: skip
    events, _ = await events_of(lambda n: [head(), delta({"content": "x"}, "content_filter"), DONE], CHAT)
    assert events[-2] == Finished(0, "stop", "content_filter")


def listed(owner, **more):
    return answer(200, {"data": [{"id": "m", "owned_by": owner, **more}]})


@pytest.mark.parametrize(
    ("owner", "dialect", "field"),
    [
        ("vllm", "vllm", "top_k"),
        ("llamacpp", "llama-server", "top_k"),
        ("library", "ollama", None),
        ("nobody", "openai", None),
    ],
)
async def test_servers_are_recognised_and_their_fields_known(owner, dialect, field):
    request = ask([{"role": "user", "content": "hi"}], top_k=5)
    async with upstream(lambda n: [head(), DONE], listed(owner)) as state, engine_at(state) as engine:
        assert engine.stats().details["dialect"] == dialect
        if field is None:
            with pytest.raises(Unsupported, match=f"'top_k' is set, but {dialect} servers have no such field"):
                await anext(engine.generate(request))
            assert state.bodies == []
        else:
            await anext(engine.generate(request))
            assert state.bodies[0][field] == 5


async def test_asking_for_nothing_is_no_field_to_refuse():
    off = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    for owner, sent in (("nobody", {}), ("llamacpp", {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0})):
        request = ask([{"role": "user", "content": "hi"}], **off)
        async with upstream(lambda n: [head(), DONE], listed(owner)) as state, engine_at(state) as engine:
            await anext(engine.generate(request))
            assert {name: value for name, value in state.bodies[0].items() if name in {*off, "repeat_penalty"}} == sent


async def test_a_server_without_a_list_needs_the_models_name():
    nothing = answer(404, {})
    events, state = await events_of(lambda n: [head(), text("a", "stop"), DONE], models=nothing, model="given")
    assert isinstance(events[-1], Done)
    assert state.bodies[0]["model"] == "given"
    with pytest.raises(NotFound, match="name the model"):
        await events_of(lambda n: [], models=nothing)
    with pytest.raises(NotFound, match="it has: m"):
        await events_of(lambda n: [], model="other")


async def test_a_refused_key_is_told_at_the_start():
    with pytest.raises(Invalid, match="who are you") as caught:
        await events_of(lambda n: [], models=answer(401, {"error": {"message": "who are you?"}}))
    assert caught.value.param == "api_key"


async def test_health_follows_the_server():
    async with upstream(lambda n: []) as state:
        config = schema.OpenAIEngine(health_every_s=0.02, connect_timeout_s=0.5)
        engine = OpenAIEngine(config, endpoint=Endpoint(state.url))
        await engine.start()
        assert engine.health().ready
        engine._wire._port = 9  # nobody listens there
        engine._wire.close()
        engine._wire._closed = False
        for _ in range(100):
            await asyncio.sleep(0.02)
            if not engine.health().ready:
                break
        assert "no connection" in engine.health().reason
        await engine.stop()


async def test_completions_logprobs_are_read_as_openai_writes_them():
    logprobs = {"tokens": ["a", "bytes:\\xf0\\x9f"], "token_logprobs": [-0.5, -3.0],
                "top_logprobs": [{"a": -0.5, "b": -1.0}, {"c": -0.1, "d": -0.2, "bytes:\\xf0\\x9f": -3.0}]}  # fmt: skip
    piece = event({"choices": [{"index": 0, "text": "a", "logprobs": logprobs, "finish_reason": "stop"}]})
    events, _ = await events_of(lambda n: [head(), piece, DONE], ask("x", logprobs=2))
    (delta,) = [each for each in events if isinstance(each, Delta)]
    first, second = delta.logprobs
    assert [(other.token, other.logprob) for other in first.top] == [("a", -0.5), ("b", -1.0)]
    assert second.raw == b"\xf0\x9f"
    assert [other.token for other in second.top] == ["c", "d"]


async def test_completions_logprobs_are_read_as_llama_server_writes_them():
    entry = {"id": 7, "token": " Paris", "bytes": list(b" Paris"), "logprob": -0.25,
             "top_logprobs": [{"id": 7, "token": " Paris", "bytes": list(b" Paris"), "logprob": -0.25}]}  # fmt: skip
    piece = event(
        {"choices": [{"index": 0, "text": " Paris", "logprobs": {"content": [entry]}, "finish_reason": "stop"}]}
    )
    events, _ = await events_of(lambda n: [head(), piece, DONE], ask("x", logprobs=1))
    (delta,) = [each for each in events if isinstance(each, Delta)]
    (told,) = delta.logprobs
    assert (told.token, told.logprob, told.raw) == (" Paris", -0.25, b" Paris")
    assert [other.token for other in told.top] == [" Paris"]
