"""The `openai` client, unchanged, on the real default model, served as a user serves it."""

from __future__ import annotations

import openai
import pytest

from tests.e2e.conftest import Server

ASK = [{"role": "user", "content": "Name three rivers of Europe."}]


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_chat_whole_and_streamed_are_the_same(client: openai.OpenAI):
    ask = {"model": "default", "messages": ASK, "max_tokens": 24, "seed": 3, "temperature": 0.8}
    whole = client.chat.completions.create(**ask)
    assert whole.choices[0].message.content.strip()
    assert 0 < whole.usage.completion_tokens <= 24
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_samples_stop_and_seed(client: openai.OpenAI):
    ask = {"model": "default", "messages": ASK, "max_tokens": 16, "temperature": 1.0, "seed": 11}
    several = client.chat.completions.create(**ask, n=3)
    texts = [choice.message.content for choice in several.choices]
    assert len(set(texts)) > 1
    stop = texts[0][len(texts[0]) // 2 :][:4]
    cut = client.chat.completions.create(**ask, n=3, stop=[stop])
    assert cut.choices[0].message.content == texts[0][: texts[0].index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_log_probabilities(client: openai.OpenAI):
    answer = client.chat.completions.create(
        model="default", messages=ASK, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3
    )
    entries = answer.choices[0].logprobs.content
    assert len(entries) == 6
    assert all(entry.top_logprobs[0].token == entry.token for entry in entries), "greedy takes the likeliest"
    assert all(len(entry.top_logprobs) == 3 for entry in entries)


def test_completions_echo_and_score(client: openai.OpenAI):
    text = "The capital of France is Paris."
    answer = client.completions.create(model="default", prompt=text, max_tokens=0, echo=True, logprobs=2)
    (choice,) = answer.choices
    assert choice.text == text
    assert "".join(choice.logprobs.tokens) == text
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.text_offset == [
        text.index(token, at) for at, token in zip(choice.logprobs.text_offset, choice.logprobs.tokens, strict=True)
    ]
    several = client.completions.create(model="default", prompt=["One, two,", "Red, green,"], max_tokens=4, n=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]


def test_errors(client: openai.OpenAI):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=ASK)
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="default", prompt="word " * 20000, max_tokens=4)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="default", messages=ASK, response_format={"type": "json_object"})
    assert caught.value.param == "response_format"


def test_repeated_prompts_hit_the_prefix_cache(client: openai.OpenAI):
    messages = [{"role": "user", "content": "Remember this list: " + ", ".join(map(str, range(150)))}]
    ask = {"model": "default", "messages": messages, "max_tokens": 1}
    client.chat.completions.create(**ask)
    used = client.chat.completions.create(**ask).usage
    assert used.prompt_tokens_details.cached_tokens > 100
    assert used.prompt_cache_hit_tokens + used.prompt_cache_miss_tokens == used.prompt_tokens
