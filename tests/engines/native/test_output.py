from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper.profile.schema import GuardConfig, ReasoningConfig
from temper.types import Finished, Limits, Message, Sampling, Stop, TemperatureSchedule, Thinking
from tests.engines.native.fakes import CLOSE, EOS, OPEN, ask, gather, make_engine

QUESTION = (Message("user", "why?"),)


async def answer_of(script: str | list[int], thinks: bool = True, section: dict | None = None, **fields):
    engine, _ = make_engine(script=script, thinks=thinks, **(section or {}))
    await engine.start()
    try:
        fields.setdefault("stop", Stop())
        fields.setdefault("max_tokens", 200)
        return await gather(engine, ask(messages=QUESTION, **fields))
    finally:
        await engine.stop()


@pytest.mark.parametrize(("script", "reasoning", "answer"), [
    ("I wonder.\n</think>\n\nBecause.", "I wonder.", "Because."),
    ("I wonder for ever", "I wonder for ever", ""),
    ("hm</think>so</think>!", "hm", "so!"),
    ("<think>hm</think>so", "hm", "so"),
    ([*b"hm</th", *b"ink>so"], "hm", "so"),
    ("", "", ""),
])  # fmt: skip
async def test_r1_opens_the_thinking_in_the_prompt(script, reasoning: str, answer: str):
    found = await answer_of(script)
    assert found.text(channel="reasoning") == reasoning
    assert found.text(channel="answer") == answer
    assert found.finished() == Finished(0, "stop")
    size = len(script) if isinstance(script, list) else None
    if size:
        assert found.done.usage.completion_tokens == size + 1


async def test_reasoning_tokens_are_counted():
    found = await answer_of("abc</think>defg")
    assert found.done.usage.reasoning_tokens == 4
    assert found.done.usage.completion_tokens == 9


async def test_a_model_that_does_not_think_keeps_its_text():
    found = await answer_of("a <think> b </think> c", thinks=False)
    assert found.text() == "a <think> b </think> c"


async def test_the_budget_closes_the_thinking_and_the_answer_comes():
    script = "x" * 10 + "</think>\n\n" + "the answer"
    found = await answer_of("x" * 500, max_tokens=40, thinking=Thinking(budget_tokens=10))
    assert found.text(channel="reasoning") == "x" * 10
    assert found.text(channel="answer") == "x" * (40 - 13)
    assert found.done.usage.reasoning_tokens == 11
    assert found.tokens()[10:13] == [CLOSE, 10, 10]
    same = await answer_of(script, thinking=Thinking(budget_tokens=100))
    assert same.text(channel="reasoning") == "x" * 10


@pytest.mark.parametrize("thinking", [
    Thinking(enabled=False), Thinking(effort="none"), Thinking(budget_tokens=0),
])  # fmt: skip
async def test_no_thinking_closes_it_at_once(thinking: Thinking):
    found = await answer_of("y" * 50, max_tokens=20, thinking=thinking)
    assert found.text(channel="reasoning") == ""
    assert found.text(channel="answer") == "y" * 17


async def test_effort_picks_the_budget():
    section = {"reasoning": ReasoningConfig(low_budget_tokens=5)}
    found = await answer_of("z" * 50, max_tokens=20, section=section, thinking=Thinking(effort="low"))
    assert found.text(channel="reasoning") == "z" * 5


async def test_stop_strings_are_never_shown():
    found = await answer_of("hm STOP </think>one STOP two", stop=Stop(strings=("STOP",)), logprobs=0)
    assert found.text(channel="reasoning") == "hm STOP"
    assert found.text(channel="answer") == "one "
    assert found.finished() == Finished(0, "stop", "STOP")
    shown = [p.token for d in found.deltas(channel="answer") for p in d.logprobs or ()]
    assert "".join(shown) == "one "


@given(
    st.integers(0, 25),
    st.lists(st.text("ab", min_size=1, max_size=5), max_size=3).map(tuple),
    st.text("ab ", max_size=25),
)
@settings(max_examples=40, deadline=None)
async def test_no_stop_string_leaks_whatever_it_is(max_tokens: int, strings: tuple[str, ...], script: str):
    found = await answer_of(script, thinks=False, max_tokens=max_tokens, stop=Stop(strings=strings))
    text = found.text()
    assert script.startswith(text)
    assert not any(s in text for s in strings)
    if found.finished().matched is None:
        assert text == script[:max_tokens]


async def test_stop_ids_and_end_tokens():
    found = await answer_of("abc", thinks=False, stop=Stop(token_ids=(98,)))
    assert found.text() == "a"
    assert found.finished() == Finished(0, "stop", 98)
    found = await answer_of([97, EOS, 98], thinks=False)
    assert (found.text(), found.finished()) == ("a", Finished(0, "stop"))
    assert found.tokens() == [97]
    found = await answer_of([97, EOS, 98, OPEN], thinks=False, stop=Stop(ignore_eos=True), max_tokens=3)
    assert (found.text(), found.finished()) == ("ab", Finished(0, "length"))


async def test_below_min_tokens_nothing_stops():
    stop = Stop(strings=("b",))
    limits = Limits(max_tokens=50, min_tokens=4)
    found = await answer_of("abcabc", thinks=False, stop=stop, limits=limits)
    assert found.text() == "abca"


async def test_broken_and_split_characters():
    found = await answer_of([*"好".encode()], thinks=False)
    assert found.text() == "好"
    assert len(found.tokens()) == 3
    found = await answer_of([*"好".encode()[:2]], thinks=False)
    assert found.text() == "\ufffd"


GRACE = GuardConfig(graceful_end=True, graceful_window=0.5)


@pytest.mark.parametrize(("script", "text"), [
    ("One is here. Two is not. Three comes", "One is here. Two is not."),
    ("一二三四五六。七八九十", "一二三四五六。"),
    ("```\nOne. Two. Three. Four. Five. Six.", "```\nOne. Two. Three. Four. Fiv"),
])  # fmt: skip
async def test_graceful_ending(script: str, text: str):
    found = await answer_of(script, thinks=False, section={"guard": GRACE}, max_tokens=30)
    assert found.text() == text
    assert found.finished() == Finished(0, "length", None if "`" in text else "graceful_end")


async def test_graceful_ending_by_request_and_not_unasked():
    found = await answer_of("One is here. Two. Three comes", thinks=False, max_tokens=20)
    assert len(found.text()) == 20
    limits = Limits(max_tokens=20, graceful_end=True)
    found = await answer_of("One is here now. Two. Three comes", thinks=False, limits=limits)
    assert found.text() == "One is here now. "
    assert found.finished().matched == "graceful_end"


LOOPY = GuardConfig(loop_ngram=6, loop_repeats=4)


async def test_the_guard_ends_an_answer_that_only_repeats():
    found = await answer_of("so " + "again, " * 40, thinks=False, section={"guard": LOOPY})
    assert found.finished() == Finished(0, "stop", "loop_guard")
    assert found.done.usage.completion_tokens < 40


async def test_the_guard_closes_looping_thinking_first():
    script = "but wait, " * 5 + "x" * 400
    found = await answer_of(script, section={"guard": LOOPY}, max_tokens=150)
    assert CLOSE in found.tokens()
    assert found.text(channel="answer")
    assert found.finished() == Finished(0, "stop", "loop_guard")


async def test_the_guard_can_be_off():
    off = GuardConfig(loop_guard=False)
    found = await answer_of("ha" * 100, thinks=False, section={"guard": off})
    assert len(found.text()) == 200


async def test_schedules_reach_the_executor():
    engine, executor = make_engine(script="ab\n\ncd ef\n\ng")
    await engine.start()
    seen: list[float] = []
    sample = executor.sample

    def spy(rows, slots, temperatures, forced):
        seen.extend(temperatures.tolist())
        return sample(rows, slots, temperatures, forced)

    executor.sample = spy
    try:
        schedule = TemperatureSchedule("paragraph", start=1.0, end=0.5, steps=2)
        await gather(engine, ask("p", 9, sampling=Sampling(temperature_schedule=schedule)))
    finally:
        await engine.stop()
    assert seen == [1.0, 0.75, 0.5, 0.5, 1.0, 0.75, 0.5, 0.5, 0.5]
