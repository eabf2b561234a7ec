"""Legacy completions: prompts of every form, echo, log-probabilities, streams."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.server.conftest import Running


async def ids(server: Running, text: str) -> list[int]:
    async with server.http as http:
        return (await http.post("/tokenize", json={"prompt": text})).json()["tokens"]


async def test_a_text(client: openai.AsyncOpenAI):
    answer = await client.completions.create(model="echo", prompt="say it again", max_tokens=50)
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.choices[0].text == "say it again"
    assert answer.choices[0].finish_reason == "stop"


async def test_16_tokens_when_nobody_says_how_many(client: openai.AsyncOpenAI):
    answer = await client.completions.create(model="count", prompt="x")
    assert answer.usage.completion_tokens == 16
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].text.endswith(" 16")


async def test_token_ids_as_the_prompt(server: Running, client: openai.AsyncOpenAI):
    answer = await client.completions.create(model="echo", prompt=await ids(server, "one two"), max_tokens=50)
    assert answer.choices[0].text == "one two"


@pytest.mark.parametrize("as_ids", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_several_prompts_answer_in_order(server: Running, client: openai.AsyncOpenAI, as_ids: bool, stream: bool):
    texts = ["first", "the second one", "third of all"]
    prompts = [await ids(server, text) for text in texts] if as_ids else texts
    answer = await client.completions.create(model="echo", prompt=prompts, max_tokens=50, n=2, stream=stream)
    said = dict.fromkeys(range(6), "")
    if stream:
        async for chunk in answer:
            for choice in chunk.choices:
                said[choice.index] += choice.text
    else:
        said = {choice.index: choice.text for choice in answer.choices}
        assert answer.usage.prompt_tokens == sum([len(await ids(server, text)) for text in texts])
    assert said == {0: texts[0], 1: texts[0], 2: texts[1], 3: texts[1], 4: texts[2], 5: texts[2]}


async def test_echo_with_logprobs_and_no_new_token(server: Running, client: openai.AsyncOpenAI):
    text = "words and 🙂 more"
    answer = await client.completions.create(model="echo", prompt=text, max_tokens=0, echo=True, logprobs=2)
    (choice,) = answer.choices
    assert choice.text == text
    assert choice.finish_reason == "length"
    found = choice.logprobs
    assert len(found.tokens) == answer.usage.prompt_tokens == len(await ids(server, text))
    assert "".join(found.tokens) == text
    assert found.token_logprobs[0] is None
    assert found.top_logprobs[0] is None
    assert all(value < 0 for value in found.token_logprobs[1:])
    assert all(len(top) == 2 for top in found.top_logprobs[1:])
    assert [text[at] for at in found.text_offset] == [token[0] for token in found.tokens]
    assert answer.usage.completion_tokens == 0


async def test_what_lm_eval_asks_for(server: Running):
    """`local-completions` scores with one new token, echo, one log-probability, and lists of token ids."""
    prompts = [await ids(server, "the sky is blue"), await ids(server, "grass is")]
    body = {
        "model": "echo",
        "prompt": prompts,
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": 1234,
        "echo": True,
    }
    async with server.http as http:
        answer = (await http.post("/v1/completions", json=body)).json()
    for prompt, choice in zip(prompts, sorted(answer["choices"], key=lambda c: c["index"]), strict=True):
        scores = choice["logprobs"]["token_logprobs"]
        assert len(scores) == len(prompt) + 1
        for score, top in zip(scores[1:-1], choice["logprobs"]["top_logprobs"][1:-1], strict=True):
            assert score == max(top.values())


async def test_logprobs_stream_like_they_stand_whole(client: openai.AsyncOpenAI):
    ask = {"model": "words", "prompt": "x", "max_tokens": 8, "logprobs": 2, "seed": 3, "echo": True}
    whole = (await client.completions.create(**ask)).choices[0]
    text, offsets, scores = "", [], []
    async for chunk in await client.completions.create(**ask, stream=True):
        text += chunk.choices[0].text
        if chunk.choices[0].logprobs:
            offsets += chunk.choices[0].logprobs.text_offset
            scores += chunk.choices[0].logprobs.token_logprobs
    assert text == whole.text
    assert offsets == whole.logprobs.text_offset
    assert scores == whole.logprobs.token_logprobs


async def test_broken_characters_are_written_as_bytes(server: Running, client: openai.AsyncOpenAI):
    text = "ab🙂🙂🙂"
    answer = await client.completions.create(model="echo", prompt=text, max_tokens=0, echo=True, logprobs=0)
    found = answer.choices[0].logprobs
    assert answer.choices[0].text == text
    assert found.tokens[0] == "ab🙂"
    assert found.tokens[1].startswith("bytes:\\xf0\\x9f")
    assert found.text_offset == [0, 3, 4][: len(found.tokens)]


async def test_usage_in_the_last_chunk(client: openai.AsyncOpenAI):
    stream = await client.completions.create(
        model="count", prompt=["a", "b"], max_tokens=3, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 6
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_best_of_other_than_n_is_refused(client: openai.AsyncOpenAI):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.completions.create(model="echo", prompt="x", best_of=3)
    assert caught.value.body["param"] == "best_of"
    await client.completions.create(model="echo", prompt="x", best_of=2, n=2)


async def test_too_many_prompts(server: Running):
    async with server.http as http:
        answer: httpx.Response = await http.post("/v1/completions", json={"model": "echo", "prompt": ["x"] * 257})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"


@pytest.mark.parametrize("stream", [False, True])
async def test_token_ids_on_request(server: Running, client: openai.AsyncOpenAI, stream: bool):
    ask = {"model": "count", "prompt": "one two", "max_tokens": 3, "echo": True, "stream": stream}
    answer = await client.completions.create(**ask, extra_body={"return_token_ids": True})
    choices = [chunk.choices[0] async for chunk in answer] if stream else answer.choices
    found = [choice.model_extra for choice in choices]
    assert [id for extra in found for id in extra.get("prompt_token_ids", [])] == await ids(server, "one two")
    assert [id for extra in found for id in extra.get("token_ids", [])] == await ids(server, "1 2 3")
