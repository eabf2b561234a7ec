"""What every Engine must do, as tests that any implementation runs.

Subclass `EngineSuite` in a test module and give the fixture `engine`: started, and with nothing running.
The suite asks of an engine only what its capabilities claim, and that it refuses the rest by name.
`prompt` must be a text that the engine goes on from for at least `LENGTH` tokens when `ignore_eos` is set.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from temper.engines.base import Engine
from temper.errors import ContextTooLong, DeadlineExceeded, Invalid, NotFound, Rejected, Unsupported
from temper.types import (
    Accepted,
    Delta,
    Done,
    Event,
    Failed,
    Finished,
    Limits,
    MediaPart,
    Message,
    Request,
    Sampling,
    Started,
    Stop,
    Thinking,
    ToolDelta,
)

LENGTH = 24


async def collect(engine: Engine, request: Request) -> list[Event]:
    return [event async for event in engine.generate(request)]


def text_of(events: Iterable[Event], index: int = 0, *channels: str) -> str:
    wanted = channels or ("reasoning", "answer")
    return "".join(e.text for e in events if isinstance(e, Delta) and e.index == index and e.channel in wanted)


def ids_of(events: Iterable[Event], index: int = 0) -> list[int]:
    return [
        id for e in events if isinstance(e, Delta) and e.index == index and e.channel != "prompt" for id in e.token_ids
    ]


def done(events: list[Event]) -> Done:
    assert isinstance(events[-1], Done), f"the stream ended with {events[-1]}"
    return events[-1]


def check_order(events: list[Event], n: int = 1) -> None:
    """Accepted, Started, deltas and finishes, exactly one Done or Failed."""
    assert isinstance(events[0], Accepted)
    assert isinstance(events[1], Started)
    assert isinstance(events[-1], Done | Failed)
    assert not any(isinstance(e, Accepted | Started | Done | Failed) for e in events[2:-1])
    finished: list[int] = []
    for event in events[2:-1]:
        assert isinstance(event, Delta | ToolDelta | Finished)
        assert 0 <= event.index < n
        assert event.index not in finished, f"sample {event.index} goes on after its end"
        if isinstance(event, Finished):
            finished.append(event.index)
    if isinstance(events[-1], Done):
        assert sorted(finished) == list(range(n))


async def settled(engine: Engine, within_s: float = 1.0) -> None:
    """Nothing runs, waits or holds KV."""
    end = asyncio.get_running_loop().time() + within_s
    while True:
        now = engine.stats()
        if now.num_running == now.num_waiting == now.kv_used_bytes == 0:
            return
        assert asyncio.get_running_loop().time() < end, f"still held after {within_s} s: {now}"
        await asyncio.sleep(0.01)


class EngineSuite:
    """The tests. A subclass may raise `SLACK_S` for a slow engine."""

    SLACK_S = 1.0
    prompt = "Once upon a time, in a village by the sea, there lived"

    @pytest.fixture
    async def engine(self):
        raise NotImplementedError("give the suite an engine")

    def ask(self, *, tokens: int | None = LENGTH, **fields) -> Request:
        """A plain continuation of `tokens` tokens, greedy and not ended by the model."""
        fields.setdefault("prompt", self.prompt)
        fields.setdefault("sampling", Sampling(temperature=0.0, seed=1))
        fields.setdefault("stop", Stop(ignore_eos=True))
        return Request("test", limits=Limits(max_tokens=tokens), **fields)

    def chat(self, **fields) -> Request:
        fields.setdefault("limits", Limits(max_tokens=LENGTH))
        return Request("test", messages=(Message("user", "Name three rivers."),), **fields)

    # -- the stream ----------------------------------------------------------------------------------

    async def test_events_come_in_order(self, engine: Engine):
        for request in (self.ask(), self.chat()):
            events = await collect(engine, request)
            check_order(events)
            done(events)

    async def test_usage_adds_up(self, engine: Engine):
        await asyncio.sleep(self.SLACK_S / 2)  # figures of an engine in another process come a moment later
        before = engine.stats()
        events = await collect(engine, self.ask())
        usage, started = done(events).usage, events[1]
        assert isinstance(started, Started)
        assert usage.prompt_tokens == started.prompt_tokens > 0
        assert usage.cached_tokens == started.cached_tokens <= usage.prompt_tokens
        assert usage.completion_tokens == LENGTH
        assert 0 <= usage.reasoning_tokens <= usage.completion_tokens
        assert len(ids_of(events)) in (0, LENGTH)
        end = asyncio.get_running_loop().time() + self.SLACK_S
        while True:
            now = engine.stats()
            counted = (
                now.prompt_tokens_total - before.prompt_tokens_total,
                now.generation_tokens_total - before.generation_tokens_total,
            )
            if counted == (usage.prompt_tokens, LENGTH):
                break
            assert asyncio.get_running_loop().time() < end, f"counted (prompt, generated) {counted}, told {usage}"
            await asyncio.sleep(0.01)

    async def test_made_by_names_the_engine(self, engine: Engine):
        assert engine.name in done(await collect(engine, self.ask(tokens=1))).made_by.engines

    async def test_max_tokens_ends_with_length(self, engine: Engine):
        events = await collect(engine, self.ask(tokens=5))
        assert [e.reason for e in events if isinstance(e, Finished)] == ["length"]
        assert done(events).usage.completion_tokens == 5

    async def test_samples_are_numbered(self, engine: Engine):
        most = engine.capabilities().max_n
        if most > 1:
            n = min(3, most)
            events = await collect(engine, self.ask(n=n, sampling=Sampling(temperature=1.0, seed=5)))
            check_order(events, n)
            assert done(events).usage.completion_tokens == n * LENGTH
            assert {e.index for e in events if isinstance(e, Delta)} == set(range(n))
        with pytest.raises(Invalid) as caught:
            await collect(engine, self.ask(n=most + 1))
        assert caught.value.param == "n"

    async def test_no_logprobs_unless_asked(self, engine: Engine):
        events = await collect(engine, self.ask())
        assert all(e.logprobs is None for e in events if isinstance(e, Delta))

    # -- stops ---------------------------------------------------------------------------------------

    async def test_a_stop_string_is_never_shown(self, engine: Engine):
        whole = text_of(await collect(engine, self.ask()))
        assert len(whole) > 12
        for start, end in ((3, 5), (4, 9), (len(whole) // 2, len(whole) // 2 + 4)):
            stop = whole[start:end]
            events = await collect(engine, self.ask(stop=Stop(strings=("\0never", stop), ignore_eos=True)))
            check_order(events)
            assert text_of(events) == whole[: whole.index(stop)]
            (finished,) = [e for e in events if isinstance(e, Finished)]
            assert (finished.reason, finished.matched) == ("stop", stop)

    async def test_a_stop_that_never_comes_costs_no_text(self, engine: Engine):
        whole = text_of(await collect(engine, self.ask()))
        held = Stop(strings=(whole[-6:] + "\0", "\0"), ignore_eos=True)
        assert text_of(await collect(engine, self.ask(stop=held))) == whole

    async def test_a_stop_token_ends_the_sample(self, engine: Engine):
        ids = ids_of(await collect(engine, self.ask()))
        if not ids:
            pytest.skip("this engine gives no token ids")
        stop = ids[6]
        events = await collect(engine, self.ask(stop=Stop(token_ids=(stop,), ignore_eos=True)))
        (finished,) = [e for e in events if isinstance(e, Finished)]
        assert (finished.reason, finished.matched) == ("stop", stop)
        assert done(events).usage.completion_tokens == ids.index(stop) + 1

    # -- repeatability -------------------------------------------------------------------------------

    async def test_a_seed_repeats(self, engine: Engine):
        if not engine.capabilities().seed:
            pytest.skip("no seed")
        request = self.ask(sampling=Sampling(temperature=1.0, seed=1234))
        first, second = await collect(engine, request), await collect(engine, request)
        assert text_of(first) == text_of(second)
        assert ids_of(first) == ids_of(second)

    async def test_concurrent_streams_are_not_mixed(self, engine: Engine):
        can = engine.capabilities()
        requests = [
            self.ask(prompt=f"{self.prompt} {word}", echo=can.echo, sampling=Sampling(temperature=1.0, seed=i))
            for i, word in enumerate(("one", "two", "three", "four", "five", "six"))
        ]
        together = await asyncio.gather(*(collect(engine, request) for request in requests))
        for request, events in zip(requests, together, strict=True):
            check_order(events)
            assert done(events).usage.completion_tokens == LENGTH
            if can.echo:
                assert text_of(events, 0, "prompt") == request.prompt
        if can.exactness == "batch-invariant":
            for request, events in zip(requests, together, strict=True):
                assert ids_of(await collect(engine, request)) == ids_of(events)

    # -- letting go ----------------------------------------------------------------------------------

    async def test_closing_frees(self, engine: Engine):
        for after in (0, 1, 4):
            stream = engine.generate(self.ask(tokens=512))
            for _ in range(after):
                await anext(stream)
            await stream.aclose()
        await settled(engine, self.SLACK_S)

    async def test_cancelling_many_frees(self, engine: Engine):
        tasks = [asyncio.create_task(collect(engine, self.ask(tokens=512, n=1))) for _ in range(12)]
        for i, task in enumerate(tasks):
            await asyncio.sleep(0.003 * i)
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError | list) for end in ends)
        await settled(engine, self.SLACK_S)
        done(await collect(engine, self.ask()))

    async def test_an_end_frees(self, engine: Engine):
        await collect(engine, self.ask())
        await settled(engine, self.SLACK_S)

    async def test_a_deadline_ends_the_stream(self, engine: Engine):
        request = self.ask(tokens=4000, deadline_s=0.0005)
        try:
            events = await collect(engine, request)
        except DeadlineExceeded:
            return
        assert isinstance(events[-1], Failed)
        assert isinstance(events[-1].error, DeadlineExceeded)
        await settled(engine, self.SLACK_S)

    # -- saying no -----------------------------------------------------------------------------------

    async def refused(self, engine: Engine, request: Request, *params: str) -> Invalid:
        """Nothing but an Invalid that names the field, before any event."""
        stream = engine.generate(request)
        with pytest.raises(Invalid) as caught:
            await anext(stream)
        assert caught.value.param in params, str(caught.value)
        await settled(engine, self.SLACK_S)
        return caught.value

    async def test_broken_requests_are_refused_before_any_event(self, engine: Engine):
        stops = tuple(f"stop {i}" for i in range(5000))
        await self.refused(engine, Request("test"), "messages", "prompt")
        both = Request("test", prompt="a", messages=(Message("user", "b"),))
        await self.refused(engine, both, "messages", "prompt")
        await self.refused(engine, self.ask(stop=Stop(strings=stops)), "stop")
        await self.refused(engine, self.ask(n=0), "n")

    async def test_a_prompt_that_does_not_fit_is_refused(self, engine: Engine):
        context = engine.capabilities().context_length
        if context is None:
            pytest.skip("no context length known")
        error = await self.refused(engine, self.ask(prompt="word " * (2 * context)), "prompt", "messages", "max_tokens")
        assert isinstance(error, ContextTooLong)
        error = await self.refused(engine, self.ask(tokens=context + 1), "prompt", "max_tokens")
        assert isinstance(error, ContextTooLong)

    async def test_what_it_cannot_do_is_refused_by_name(self, engine: Engine):
        can = engine.capabilities()
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
        picture = Message("user", "look", media=(MediaPart("image", "data:image/png;base64,AA=="),))
        if not can.tools:
            await self.refused(engine, self.chat(tools=(tool,)), "tools")
        if not can.grammar:
            await self.refused(engine, self.chat(response_format={"type": "json_object"}), "response_format")
        if not can.beams:
            await self.refused(engine, self.ask(sampling=Sampling(num_beams=4)), "num_beams")
        if "image" not in can.media:
            await self.refused(engine, replace(self.chat(), messages=(picture,)), "messages")
        if not can.logprobs:
            await self.refused(engine, self.ask(logprobs=1), "logprobs")
        await self.refused(engine, self.ask(logprobs=can.max_logprobs + 1), "logprobs")
        if not can.echo:
            await self.refused(engine, self.ask(echo=True), "echo")
        if not can.thinking:
            await self.refused(engine, self.chat(thinking=Thinking(enabled=True)), "thinking")
        await self.refused(engine, self.ask(adapter="no such adapter"), "adapter", "model")
        await self.refused(engine, self.ask(extensions={"no_such_extension": 1}), "extensions")

    # -- capabilities --------------------------------------------------------------------------------

    async def test_logprobs_come_with_each_token(self, engine: Engine):
        can = engine.capabilities()
        if not can.logprobs:
            pytest.skip("no logprobs")
        k = min(3, can.max_logprobs)
        events = await collect(engine, self.ask(logprobs=k))
        entries = [entry for e in events if isinstance(e, Delta) and e.logprobs for entry in e.logprobs]
        assert len(entries) == LENGTH
        assert [entry.token_id for entry in entries] == ids_of(events)
        for entry in entries:
            assert entry.logprob is not None
            assert math.isfinite(entry.logprob)
            assert entry.logprob <= 1e-6
            assert len(entry.top) == k
            values = [other.logprob for other in entry.top]
            assert values == sorted(values, reverse=True)
            assert sum(math.exp(value) for value in values) <= 1 + 1e-4
        assert b"".join(entry.raw for entry in entries).decode(errors="replace").strip() == text_of(events).strip()

    async def test_logprobs_zero_gives_the_chosen_token_alone(self, engine: Engine):
        if not engine.capabilities().logprobs:
            pytest.skip("no logprobs")
        events = await collect(engine, self.ask(logprobs=0))
        entries = [entry for e in events if isinstance(e, Delta) and e.logprobs for entry in e.logprobs]
        assert len(entries) == LENGTH
        assert all(entry.top == () for entry in entries)

    async def test_echo_gives_the_prompt_back(self, engine: Engine):
        can = engine.capabilities()
        if not can.echo:
            pytest.skip("no echo")
        for tokens in (0, 3):
            events = await collect(
                engine, self.ask(tokens=tokens, echo=True, logprobs=min(1, can.max_logprobs) if can.logprobs else None)
            )
            check_order(events)
            assert text_of(events, 0, "prompt") == self.prompt
            usage = done(events).usage
            assert usage.completion_tokens == tokens
            prompt = [e for e in events if isinstance(e, Delta) and e.channel == "prompt"]
            assert sum(len(e.token_ids) for e in prompt) == usage.prompt_tokens
            if can.logprobs:
                entries = [entry for e in prompt for entry in e.logprobs or ()]
                assert len(entries) == usage.prompt_tokens
                assert entries[0].logprob is None
                assert all(entry.logprob is not None and entry.logprob <= 1e-6 for entry in entries[1:])

    async def test_tokenizing_goes_there_and_back(self, engine: Engine):
        if not engine.capabilities().tokenize:
            pytest.skip("no tokenize")
        for text in (self.prompt, "Grüße, 世界! 🙂\n\tdef f(x): return x**2", "  two  blanks "):
            ids = await engine.tokenize(text, add_special_tokens=False)
            assert await engine.detokenize(ids) == text
        request = self.ask()
        started = (await collect(engine, request))[1]
        assert isinstance(started, Started)
        assert await engine.count_tokens(request) == started.prompt_tokens
        assert len(await engine.tokenize(self.prompt)) == started.prompt_tokens

    async def test_token_ids_are_prompts_too(self, engine: Engine):
        if not engine.capabilities().tokenize:
            pytest.skip("no tokenize")
        ids = tuple(await engine.tokenize(self.prompt))
        events = await collect(engine, self.ask(prompt=ids))
        assert done(events).usage.prompt_tokens == len(ids)
        assert text_of(events) == text_of(await collect(engine, self.ask()))

    async def test_scores_are_log_probabilities(self, engine: Engine):
        can = engine.capabilities()
        if not (can.score and can.tokenize):
            pytest.skip("no score")
        ids = await engine.tokenize(self.prompt)
        whole = await engine.score(ids)
        assert whole.logprobs.shape == (len(ids) - 1,)
        assert whole.top_ids is None
        assert whole.top_logprobs.shape[0] == len(ids) - 1
        np.testing.assert_allclose(np.exp(whole.top_logprobs.astype(np.float64)).sum(-1), 1, atol=1e-3)
        picked = whole.top_logprobs[np.arange(len(ids) - 1), ids[1:]]
        np.testing.assert_allclose(picked, whole.logprobs, atol=1e-3)
        few = await engine.score(ids, top_k=4)
        assert few.top_ids is not None
        assert few.top_ids.shape == few.top_logprobs.shape == (len(ids) - 1, 4)
        np.testing.assert_allclose(few.logprobs, whole.logprobs, atol=2e-2)
        assert (np.diff(few.top_logprobs, axis=1) <= 0).all()

    async def test_embeddings_have_one_shape(self, engine: Engine):
        if not engine.capabilities().embed:
            pytest.skip("no embed")
        rows = await engine.embed(["one", "two", "one"])
        assert rows.shape[0] == 3
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows[0], rows[2], atol=1e-5)

    async def test_it_tells_where_its_time_goes_or_refuses(self, engine: Engine):
        if not engine.capabilities().trace:
            with pytest.raises(Unsupported):
                await engine.start_trace()
            with pytest.raises(Unsupported):
                await engine.stop_trace()
            return
        await engine.start_trace()
        end = done(await collect(engine, self.ask()))
        found = await engine.stop_trace()
        assert found.window_s > 0
        assert found.num_steps > 0
        assert found.decode_tokens + found.prefill_tokens >= end.usage.completion_tokens
        assert all(count > 0 and seconds >= 0 for count, seconds in found.parts.values())

    async def test_adapters_are_offered_or_refused(self, engine: Engine):
        can = engine.capabilities()
        assert len(can.adapter_versions) in (0, len(can.adapters))
        for name in can.adapters:
            made = done(await collect(engine, self.ask(adapter=name))).made_by
            assert made.adapter is None or made.adapter.startswith(f"{name}@")
        with pytest.raises(Invalid) as caught:
            await engine.load_adapter("no such adapter", "/no/such/folder")
        assert isinstance(caught.value, Unsupported | NotFound)
        with pytest.raises(Invalid):
            await engine.unload_adapter("no such adapter")
        assert engine.capabilities().adapters == can.adapters

    async def test_min_tokens_holds_the_end_back(self, engine: Engine):
        request = replace(self.chat(), limits=Limits(max_tokens=LENGTH, min_tokens=LENGTH))
        assert done(await collect(engine, request)).usage.completion_tokens == LENGTH

    # -- life ----------------------------------------------------------------------------------------

    async def test_it_is_healthy_and_says_what_it_is(self, engine: Engine):
        health, can = engine.health(), engine.capabilities()
        assert health.alive
        assert health.ready, health.reason
        assert can.model
        assert can.exactness in ("batch-invariant", "reproducible", "unknown")
        assert can.max_n >= 1

    async def test_stop_lets_running_work_finish(self, engine: Engine):
        running = asyncio.create_task(collect(engine, self.ask()))
        await asyncio.sleep(0.01)
        await engine.stop(drain_s=30.0)
        done(await running)
        with pytest.raises(Rejected):
            await collect(engine, self.ask())
        assert not engine.health().ready

    async def test_stop_without_patience_ends_streams(self, engine: Engine):
        running = asyncio.create_task(collect(engine, self.ask(tokens=4000)))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(engine.stop(), 15)
        try:
            events = await asyncio.wait_for(running, 5)
        except Rejected:
            return
        assert isinstance(events[-1], Failed | Done)

    async def test_it_can_start_again(self, engine: Engine):
        await engine.stop()
        await engine.start()
        done(await collect(engine, self.ask()))
