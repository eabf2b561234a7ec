"""The scripts by name, and the thinking rules proven on scripted tokens (through the native output code)."""

from __future__ import annotations

import pytest

from temper.engines.fake import SCRIPTS, FakeEngine, Script, script
from temper.errors import EngineDied, EngineFailure, ProfileError, QueueFull
from temper.profile import schema
from temper.types import Delta, Done, Event, Failed, Finished, Limits, Message, Request, Sampling, Thinking


async def play(name: str, *, max_tokens: int = 40, **fields: object) -> list[Event]:
    engine = FakeEngine(schema.FakeEngine(script=name))
    await engine.start()
    fields.setdefault("messages", (Message("user", "what is it"),))
    return [event async for event in engine.generate(Request("t", limits=Limits(max_tokens), **fields))]


def said(events: list[Event], channel: str, index: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, Delta) and (e.channel, e.index) == (channel, index))


async def test_texts():
    assert said(await play("echo"), "answer") == "what is it"
    assert said(await play("echo", messages=None, prompt="a prompt"), "answer") == "a prompt"
    assert said(await play("fixed:Grüße, 世界 🙂"), "answer") == "Grüße, 世界 🙂"
    assert said(await play("count:4"), "answer") == "1 2 3 4"
    assert said(await play("count", max_tokens=3), "answer") == "1 2 3"


async def test_words_follow_the_seed_and_the_sample():
    first = await play("words", max_tokens=5, n=2, sampling=Sampling(seed=1))
    again = await play("words", max_tokens=5, n=2, sampling=Sampling(seed=1))
    other = await play("words", max_tokens=5, n=2, sampling=Sampling(seed=2))
    assert said(first, "answer") == said(again, "answer") != said(other, "answer")
    assert said(first, "answer", 0) != said(first, "answer", 1)


@pytest.mark.parametrize(
    ("name", "thought", "answer"),
    [
        # R1's template opens the tag in the prompt: the text holds only the close tag.
        ("opened:hm|</think>|\n\n|yes", "hm", "yes"),
        ("opened:h|m</th|ink>y|es", "hm", "yes"),
        ("opened:<|/|t|h|i|n|k|>|yes", "", "yes"),
        ("opened:a </th| b|</think>|c", "a </th b", "c"),
        ("opened:never closed", "never closed", ""),
        ("opened:once|</think>|said|</think>| more", "once", "said more"),
        ("opened:<think>|opened again|</think>|x", "opened again", "x"),
        ("opened:\n\n|hm|\n\n|</think>|\n\n|yes|\n", "hm", "yes\n"),
        ("opened:</think>|no thought", "", "no thought"),
        # Others write both tags.
        ("pieces:<think>|hm|</think>|yes", "hm", "yes"),
        ("pieces:<th|ink>hm</|think>yes", "hm", "yes"),
        ("pieces:\n|<think>|hm|</think>|yes", "hm", "yes"),
        ("pieces:no tags at all", "", "no tags at all"),
        ("pieces:<thi|s is no tag", "", "<this is no tag"),
        ("pieces:a <think> in the middle", "", "a <think> in the middle"),
    ],
)
async def test_thinking_is_split(name: str, thought: str, answer: str):
    events = await play(name)
    assert (said(events, "reasoning"), said(events, "answer")) == (thought, answer)
    channels = [e.channel for e in events if isinstance(e, Delta) and e.text]
    assert channels == sorted(channels, reverse=True), "thinking comes first"


async def test_a_bare_prompt_is_not_split():
    events = await play("pieces:<think>|hm|</think>|yes", messages=None, prompt="x")
    assert said(events, "answer") == "<think>hm</think>yes"


async def test_a_budget_closes_the_thinking():
    events = await play("opened:a| b| c| d| e|</think>|the answer", thinking=Thinking(budget_tokens=2), max_tokens=50)
    assert said(events, "reasoning") == "a b"
    assert said(events, "answer") == "the answer"
    done = events[-1]
    assert isinstance(done, Done)
    assert done.usage.reasoning_tokens == 3  # two and the close tag


async def test_an_endless_thought_ends_with_the_budget():
    events = await play("think", thinking=Thinking(budget_tokens=0))
    assert said(events, "reasoning") == ""
    assert said(events, "answer") == "what is it"


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("cut", EngineFailure, "1 2 3"),
        ("cut:1", EngineFailure, "1"),
        ("error-500", EngineFailure, ""),
        ("crash:2", EngineDied, "1 2"),
    ],
)
async def test_failures(name: str, kind: type[EngineFailure], text: str):
    events = await play(name)
    assert isinstance(events[-1], Failed)
    assert isinstance(events[-1].error, kind)
    assert said(events, "answer") == text
    assert not any(isinstance(event, Finished) for event in events)


async def test_a_refusal_comes_before_any_event():
    with pytest.raises(QueueFull) as caught:
        await play("error-429:7")
    assert caught.value.retry_after_s == 7


def test_an_unknown_script_is_refused_by_name():
    with pytest.raises(ProfileError, match="no script 'ecko'") as caught:
        FakeEngine(schema.FakeEngine(script="ecko"))
    assert "echo" in str(caught.value)


async def test_the_table_is_open():
    @script("test-only")
    def _test_only(request: Request, argument: str, sample: int) -> Script:
        return Script([b"mine ", argument.encode()])

    try:
        assert said(await play("test-only:too"), "answer") == "mine too"
    finally:
        del SCRIPTS["test-only"]
