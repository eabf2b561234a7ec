"""Flat options find their place in a Request; events add up to an Answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.asking import OPTIONS, Reading, ask, collect, message
from temper.errors import EngineFailure, Invalid
from temper.types import (
    Delta,
    Done,
    Event,
    Failed,
    Finished,
    MediaPart,
    Message,
    Started,
    TemperatureSchedule,
    ToolCall,
    ToolDelta,
    Usage,
)


def test_options_land_where_they_belong():
    request = ask("Once", max_tokens=5, temperature=0.5, stop=["a", "b"], ignore_eos=True, thinking_budget=9, n=2,
                  logit_bias={3: -1}, temperature_schedule=[1.0, 0.5], preset="code")  # fmt: skip
    assert request.prompt == "Once"
    assert request.messages is None
    assert request.limits.max_tokens == 5
    assert (request.stop.strings, request.stop.ignore_eos) == (("a", "b"), True)
    assert request.sampling.temperature == 0.5
    assert request.sampling.preset == "code"
    assert request.sampling.logit_bias == ((3, -1.0),)
    assert request.sampling.temperature_schedule == TemperatureSchedule("list", (1.0, 0.5))
    assert request.thinking.budget_tokens == 9
    assert request.n == 2


def test_every_request_has_an_id_of_its_own():
    assert ask("x").id != ask("x").id
    assert ask("x", id="mine").id == "mine"


def test_token_ids_and_conversations():
    assert ask([1, 2, 3]).prompt == (1, 2, 3)
    assert ask([Message("user", "hi")]).messages == (Message("user", "hi"),)
    with pytest.raises(Invalid, match="empty"):
        ask([])


@given(st.text(min_size=1, max_size=20).filter(lambda name: name not in OPTIONS and name != "prompt"))
def test_any_other_name_is_refused(name):
    with pytest.raises(Invalid) as caught:
        ask("x", **{name: 1})
    assert caught.value.param == name


def test_messages_in_openai_s_shape():
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert message({"role": "assistant", "content": None, "tool_calls": [call]}).tool_calls == (
        ToolCall("c1", "f", "{}"),
    )
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    assert message({"role": "user", "content": parts}) == Message("user", "see", media=(MediaPart("image", "data:x"),))


@pytest.mark.parametrize("value", [{}, {"content": "x"}, {"role": "user", "text": "x"}, "x", 3])
def test_what_is_no_message_is_refused(value):
    with pytest.raises(Invalid, match="a message is a mapping"):
        message(value)


def test_an_answer_is_put_together_by_sample_and_channel():
    reading = Reading()
    events: list[Event] = [
        Started(4),
        Delta(0, "hm", (1,), channel="reasoning"),
        Delta(1, "b"),
        Delta(0, "a", (2,)),
        ToolDelta(0, 0, "id", "f", '{"x"'),
        ToolDelta(0, 0, None, None, ":1}"),
        Finished(1, "length"),
        Finished(0, "tool_calls"),
        Done(Usage(4, 0, 3, 1)),
    ]
    for event in events:
        reading.take(event)
    answer = reading.answer()
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("a", "hm", "tool_calls")
    assert answer.samples[0].token_ids == [1, 2]
    assert answer.samples[0].tool_calls == [ToolCall("id", "f", '{"x":1}')]
    assert (answer.samples[1].text, answer.samples[1].finish_reason) == ("b", "length")
    assert answer.usage.reasoning_tokens == 1


async def test_a_broken_stream_raises_what_broke_it_and_a_silent_end_is_a_failure():
    async def stream(*events: Event) -> AsyncIterator[Event]:
        for event in events:
            yield event

    with pytest.raises(EngineFailure, match="why"):
        await collect(stream(Delta(0, "a"), Failed(EngineFailure("why"))))
    with pytest.raises(EngineFailure, match="must end with Done"):
        await collect(stream(Delta(0, "a")))
