"""DeepSeek's conventions: thinking apart from the answer, its switches, its usage, its keep-alives."""

from __future__ import annotations

import openai
import pytest

from temper.server import ServerSettings
from tests.server.conftest import Running, fake, running

ASK = [{"role": "user", "content": "why is it so"}]
THOUGHT = "The question is: why is it so\nI shall repeat it."


async def test_thinking_stands_apart(client: openai.AsyncOpenAI):
    answer = await client.chat.completions.create(model="think", messages=ASK)
    message = answer.choices[0].message
    assert message.content == "why is it so"
    assert message.reasoning_content == message.reasoning == THOUGHT
    used = answer.usage
    assert 0 < used.completion_tokens_details.reasoning_tokens < used.completion_tokens
    assert used.prompt_cache_hit_tokens + used.prompt_cache_miss_tokens == used.prompt_tokens


async def test_thinking_streams_apart(client: openai.AsyncOpenAI):
    thought, said, order = "", "", []
    async for chunk in await client.chat.completions.create(model="think", messages=ASK, stream=True):
        delta = chunk.choices[0].delta
        if text := getattr(delta, "reasoning_content", None):
            assert delta.reasoning == text
            assert not delta.content
            thought += text
            order.append("thought")
        if delta.content:
            said += delta.content
            order.append("said")
    assert (thought, said) == (THOUGHT, "why is it so")
    assert order == sorted(order, reverse=True)


async def test_no_thinking_no_field(client: openai.AsyncOpenAI):
    answer = await client.chat.completions.create(model="echo", messages=ASK)
    assert "reasoning_content" not in answer.choices[0].message.model_dump()


@pytest.mark.parametrize(
    "switch",
    [
        {"thinking": {"type": "disabled"}},
        {"reasoning_effort": "none"},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
async def test_thinking_can_be_switched_off(client: openai.AsyncOpenAI, switch: dict):
    answer = await client.chat.completions.create(model="think", messages=ASK, extra_body=switch)
    assert answer.choices[0].message.content == "why is it so"
    assert "reasoning_content" not in answer.choices[0].message.model_dump()


async def test_a_budget_ends_thinking(client: openai.AsyncOpenAI):
    budget = {"thinking": {"type": "enabled", "budget_tokens": 3}}
    answer = await client.chat.completions.create(model="think", messages=ASK, extra_body=budget)
    assert answer.choices[0].message.content == "why is it so"
    assert THOUGHT.startswith(answer.choices[0].message.reasoning_content)
    assert answer.usage.completion_tokens_details.reasoning_tokens <= 5


async def test_switches_must_agree(client: openai.AsyncOpenAI):
    switches = {"thinking": {"type": "enabled"}, "reasoning_effort": "none"}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="think", messages=ASK, extra_body=switches)
    assert caught.value.param == "thinking"


async def test_log_probabilities_follow_the_channel(client: openai.AsyncOpenAI):
    answer = await client.chat.completions.create(model="think", messages=ASK, logprobs=True)
    found = answer.choices[0].logprobs
    assert "".join(entry.token for entry in found.content).strip() == "why is it so"
    assert "".join(e["token"] for e in found.model_extra["reasoning_content"]).startswith("The question")


async def test_repeated_prompts_hit_the_cache(client: openai.AsyncOpenAI):
    ask = [{"role": "user", "content": "a long beginning that is always the same " * 20}]
    first = (await client.chat.completions.create(model="echo", messages=ask, max_tokens=1)).usage
    second = (await client.chat.completions.create(model="echo", messages=ask, max_tokens=1)).usage
    assert first.prompt_cache_hit_tokens == 0
    assert second.prompt_cache_hit_tokens == second.prompt_tokens_details.cached_tokens > 0


async def test_thinking_of_earlier_turns_is_taken_back(client: openai.AsyncOpenAI):
    messages = [*ASK, {"role": "assistant", "content": "so", "reasoning_content": "hm"}, *ASK]
    answer = await client.chat.completions.create(model="echo", messages=messages)
    assert answer.choices[0].message.content == "why is it so"


async def test_comments_while_waiting():
    """The line is full: whoever waits hears comments, then the answer."""
    engine = fake("count", max_sequences=1, itl_ms=20)
    async with running(engine, ServerSettings(keep_alive_s=0.1)) as server:
        busy = {"messages": ASK, "stream": True, "max_tokens": 25}
        async with server.http as http, http.stream("POST", "/v1/chat/completions", json=busy) as first:
            lines = first.aiter_lines()
            await anext(lines)
            text = (await read(server, {"messages": ASK, "stream": True, "max_tokens": 2})).split("\n\n")
    comments = [part for part in text if part == ": keep-alive"]
    assert len(comments) >= 2
    assert text[0] == ": keep-alive"
    assert text[-2] == "data: [DONE]"
    assert "".join(text).count('"content":" 2"') == 1


async def test_comments_in_a_silent_stream():
    async with running(fake("stall:1"), ServerSettings(keep_alive_s=0.05)) as server:
        body = {"messages": ASK, "stream": True, "deadline_s": 0.4}
        text = await read(server, body)
    assert text.count(": keep-alive") >= 3
    assert '"code":"deadline_exceeded"' in text
    assert "[DONE]" not in text


async def read(server: Running, body: dict) -> str:
    async with server.http as http:
        return (await http.post("/v1/chat/completions", json=body)).text
