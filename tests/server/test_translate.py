"""Bodies to requests, field by field."""

from __future__ import annotations

from typing import Any

import pytest

from temper.errors import Invalid
from temper.server import ServerSettings, schemas, translate
from temper.types import Limits, MediaPart, Message, Sampling, Stop, TemperatureSchedule, Thinking, ToolCall

ASK = [{"role": "user", "content": "x"}]


def chat(**fields: Any):
    body = schemas.check(schemas.ChatBody, {"messages": ASK} | fields)
    return translate.chat_request(body, "id", None, "someone", ServerSettings())


def completion(**fields: Any):
    body = schemas.check(schemas.CompletionBody, {"prompt": "x"} | fields)
    return translate.completion_requests(body, "id", None, None, ServerSettings())


def test_nothing_is_made_up():
    request = chat()
    assert request.messages == (Message("user", "x"),)
    assert request.sampling == Sampling()
    assert request.stop == Stop()
    assert request.limits == Limits()
    assert request.thinking == Thinking()
    assert (request.n, request.logprobs, request.echo, request.tenant) == (1, None, False, "someone")


def test_every_sampling_field_arrives():
    request = chat(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=0.3,
        frequency_penalty=-0.4,
        no_repeat_ngram_size=3,
        logit_bias={"7": -5, "3": 2.5},
        seed=-1,
        num_beams=2,
        preset="legal",
        temperature_schedule={"kind": "list", "values": [1, 0.5]},
    )
    assert request.sampling == Sampling(
        preset="legal",
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=0.3,
        frequency_penalty=-0.4,
        no_repeat_ngram_size=3,
        logit_bias=((3, 2.5), (7, -5)),
        temperature_schedule=TemperatureSchedule("list", (1, 0.5)),
        seed=-1,
        num_beams=2,
    )


def test_minus_one_switches_top_k_off_as_in_vllm():
    assert chat(top_k=-1).sampling.top_k == 0


def test_the_rest_arrives():
    request = chat(
        stop="end",
        stop_token_ids=[5],
        ignore_eos=True,
        max_completion_tokens=9,
        min_tokens=2,
        graceful_end=True,
        n=3,
        logprobs=True,
        priority=-2,
        deadline_s=1.5,
        extensions={"a": 1},
    )
    assert request.stop == Stop(("end",), (5,), True)
    assert request.limits == Limits(9, 2, True)
    assert (request.n, request.logprobs, request.priority, request.deadline_s) == (3, 0, -2, 1.5)
    assert request.extensions == {"a": 1}
    assert chat(logprobs=True, top_logprobs=4).logprobs == 4
    assert chat(logprobs=False).logprobs is None


@pytest.mark.parametrize(
    ("fields", "thinking"),
    [
        ({"reasoning_effort": "low"}, Thinking(None, None, "low")),
        ({"reasoning_effort": "minimal"}, Thinking(None, None, "low")),
        ({"reasoning_effort": "none"}, Thinking(False, None, "none")),
        ({"thinking": {"type": "enabled", "budget_tokens": 7}}, Thinking(True, 7, None)),
        ({"thinking": {"type": "disabled"}}, Thinking(False)),
        ({"thinking": {"type": "enabled"}, "reasoning_effort": "high"}, Thinking(True, None, "high")),
        ({"chat_template_kwargs": {"enable_thinking": False}}, Thinking(False)),
    ],
)
def test_thinking(fields: dict[str, Any], thinking: Thinking):
    assert chat(**fields).thinking == thinking


def test_messages_of_every_kind():
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    given = [
        {"role": "developer", "content": "rules"},
        {"role": "user", "content": [{"type": "text", "text": "see"}, picture], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "content": "result", "tool_call_id": "c1"},
        {"role": "assistant", "content": "so", "reasoning": "ha"},
    ]
    assert chat(messages=given).messages == (
        Message("system", "rules"),
        Message("user", "see", name="ann", media=(MediaPart("image", "data:image/png;base64,AA=="),)),
        Message("assistant", None, "hm", tool_calls=(ToolCall("c1", "f", "{}"),)),
        Message("tool", "result", tool_call_id="c1"),
        Message("assistant", "so", "ha"),
    )


def test_tools_and_forms_keep_their_shape():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True}}
    request = chat(tools=[tool], tool_choice={"type": "function", "function": {"name": "f"}}, response_format=form)
    assert request.tools == (tool,)
    assert request.tool_choice == {"type": "function", "function": {"name": "f"}}
    assert request.response_format == form
    assert chat(response_format={"type": "text"}).response_format is None


def test_prompts_of_every_form():
    assert [r.prompt for r in completion(prompt="a")] == ["a"]
    assert [r.prompt for r in completion(prompt=["a", "b"])] == ["a", "b"]
    assert [r.prompt for r in completion(prompt=[1, 2])] == [(1, 2)]
    assert [r.prompt for r in completion(prompt=[[1], [2, 3]])] == [(1,), (2, 3)]
    assert [r.id for r in completion(prompt=["a", "b"])] == ["id-0", "id-1"]
    (request,) = completion()
    assert request.limits.max_tokens == 16
    (request,) = completion(max_tokens=0, echo=True, logprobs=3)
    assert (request.limits.max_tokens, request.echo, request.logprobs) == (0, True, 3)


@pytest.mark.parametrize("prompt", [[], [[]], [[1], []]])
def test_empty_prompts_are_refused(prompt: list[Any]):
    with pytest.raises(Invalid) as caught:
        completion(prompt=prompt)
    assert caught.value.param.startswith("prompt")
