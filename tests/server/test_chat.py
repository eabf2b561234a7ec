"""Chat completions, as the unchanged `openai` client sees them."""

from __future__ import annotations

import json

import openai
import pytest

from tests.server.conftest import Running

ASK = [{"role": "user", "content": "say this again"}]


async def test_a_whole_answer(client: openai.AsyncOpenAI):
    answer = await client.chat.completions.create(model="echo", messages=ASK)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "echo"
    assert answer.system_fingerprint.startswith("fp_")
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == "say this again"
    assert choice.finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens == 4  # three words and the end of text


async def test_a_stream(client: openai.AsyncOpenAI):
    stream = await client.chat.completions.create(model="echo", messages=ASK, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "say this again"
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


async def test_usage_comes_last_when_asked(client: openai.AsyncOpenAI):
    stream = await client.chat.completions.create(
        model="echo", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 4
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks[:-1])


async def test_the_bytes_of_a_stream(server: Running):
    """What stands on the wire: data lines of JSON, `[DONE]` last, a null usage in every chunk when asked for."""
    body = {"model": "echo", "messages": ASK, "stream": True, "stream_options": {"include_usage": True}}
    async with server.http as http:
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, last, rest = answer.text.split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert all("usage" in chunk for chunk in chunks)
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert all("finish_reason" in chunk["choices"][0] for chunk in chunks[:-1])


async def test_several_samples(client: openai.AsyncOpenAI):
    ask = {"model": "words", "messages": ASK, "n": 3, "max_tokens": 6, "seed": 4}
    whole = await client.chat.completions.create(**ask)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    said, ended = dict.fromkeys(range(3), ""), []
    async for chunk in await client.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            ended += [choice.index] if choice.finish_reason else []
    assert list(said.values()) == texts
    assert sorted(ended) == [0, 1, 2]


async def test_seed_repeats_and_differs(client: openai.AsyncOpenAI):
    async def said(seed: int) -> str | None:
        answer = await client.chat.completions.create(model="words", messages=ASK, max_tokens=6, seed=seed)
        return answer.choices[0].message.content

    assert await said(1) == await said(1) != await said(2)


@pytest.mark.parametrize("stop", [" 4", ["nothing", " 4"]])
@pytest.mark.parametrize("stream", [False, True])
async def test_stop_strings(client: openai.AsyncOpenAI, stop: str | list[str], stream: bool):
    answer = await client.chat.completions.create(model="count", messages=ASK, max_tokens=50, stop=stop, stream=stream)
    if stream:
        chunks = [chunk async for chunk in answer]
        text, reason = "".join(c.choices[0].delta.content or "" for c in chunks), chunks[-1].choices[0].finish_reason
    else:
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert text == "1 2 3"
    assert reason == "stop"


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
async def test_limits(client: openai.AsyncOpenAI, limit: str):
    answer = await client.chat.completions.create(model="count", messages=ASK, **{limit: 3})
    assert answer.choices[0].message.content == "1 2 3"
    assert answer.choices[0].finish_reason == "length"


async def test_logprobs(client: openai.AsyncOpenAI):
    ask = {"model": "count", "messages": ASK, "max_tokens": 3, "logprobs": True, "top_logprobs": 2}
    whole = (await client.chat.completions.create(**ask)).choices[0].logprobs.content
    assert "".join(entry.token for entry in whole) == "1 2 3"
    assert all(len(entry.top_logprobs) == 2 and entry.logprob < 0 for entry in whole)
    assert bytes(whole[1].bytes) == b" 2"
    streamed = []
    async for chunk in await client.chat.completions.create(**ask, stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert streamed == whole


async def test_logprobs_are_absent_unless_asked(client: openai.AsyncOpenAI):
    answer = await client.chat.completions.create(model="echo", messages=ASK)
    assert answer.choices[0].logprobs is None


async def test_content_parts_and_roles(client: openai.AsyncOpenAI):
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "parts"}]},
    ]
    answer = await client.chat.completions.create(model="echo", messages=messages)
    assert answer.choices[0].message.content == "two\nparts"


async def test_an_answer_can_be_sent_back(client: openai.AsyncOpenAI):
    first = await client.chat.completions.create(model="think", messages=ASK)
    messages = [*ASK, first.choices[0].message.model_dump(), {"role": "user", "content": "again"}]
    second = await client.chat.completions.create(model="echo", messages=messages)
    assert second.choices[0].message.content == "again"


async def test_harmless_fields_pass(client: openai.AsyncOpenAI):
    answer = await client.chat.completions.create(
        model="echo",
        messages=ASK,
        user="me",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        safety_identifier="x",
        prompt_cache_key="y",
        modalities=["text"],
        parallel_tool_calls=True,
        response_format={"type": "text"},
    )
    assert answer.choices[0].message.content == "say this again"


async def test_fields_beyond_openai(client: openai.AsyncOpenAI):
    extra = {
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 3,
        "min_tokens": 6,
        "ignore_eos": True,
        "stop_token_ids": [9],
        "priority": -1,
        "num_beams": 1,
        "preset": "dialogue",
        "graceful_end": False,
        "temperature_schedule": {"kind": "linear", "start": 1.0, "end": 0.5, "steps": 10},
        "deadline_s": 10.0,
    }
    answer = await client.chat.completions.create(model="echo", messages=ASK, max_tokens=9, extra_body=extra)
    assert answer.usage.completion_tokens == 9
    assert answer.model_extra["temper"]["made_by"]["preset"] == "dialogue"


async def test_what_the_engine_cannot_do_is_refused_by_name(client: openai.AsyncOpenAI):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="echo", messages=ASK, response_format={"type": "json_object"})
    assert (caught.value.param, caught.value.code) == ("response_format", "unsupported")


async def test_the_default_model(client: openai.AsyncOpenAI):
    answer = await client.chat.completions.create(model="default", messages=ASK)
    assert answer.model == "echo"


async def test_models(client: openai.AsyncOpenAI):
    names = [model.id async for model in client.models.list()]
    assert names[:3] == ["echo", "count", "words"]
    assert (await client.models.retrieve("think")).id == "think"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("no such model")
