from __future__ import annotations

import asyncio

import numpy as np
import pytest

from temper.engines.native.engine import NativeEngine
from temper.errors import ContextTooLong, DeadlineExceeded, Draining, Invalid, OutOfMemory, QueueFull, Unsupported
from temper.profile.schema import AdmissionConfig, Profile
from temper.profile.schema import NativeEngine as NativeSection
from temper.types import (
    Accepted,
    Done,
    Finished,
    Limits,
    MediaPart,
    Message,
    Sampling,
    Started,
    Stop,
    Thinking,
    ToolCall,
)
from tests.engines.native.fakes import ask, gather, make_engine


class running:
    """Starts an engine and stops it; nothing may be held afterwards."""

    def __init__(self, engine: NativeEngine, executor) -> None:
        self.engine, self.executor = engine, executor

    async def __aenter__(self) -> NativeEngine:
        await self.engine.start()
        return self.engine

    async def __aexit__(self, *_: object) -> None:
        await idle(self.engine)
        pool = self.engine._scheduler.cache.pool
        assert pool.num_held == 0
        assert pool.num_free + self.engine._scheduler.cache.num_idle == pool.num_blocks
        assert not self.executor.slots
        await self.engine.stop()


async def idle(engine: NativeEngine) -> None:
    for _ in range(200):
        stats = engine.stats()
        if stats.num_running == stats.num_waiting == stats.kv_used_bytes == 0:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"not idle: {stats}")


async def test_a_stream_has_its_shape():
    async with running(*make_engine()) as engine:
        answer = await gather(engine, ask("hello", 8))
    assert answer.events[0] == Accepted(0)
    assert answer.events[1] == Started(5, 0)
    assert answer.finished() == Finished(0, "length")
    assert isinstance(answer.events[-1], Done)
    assert len(answer.text()) == 8
    assert answer.done.usage.prompt_tokens == 5
    assert answer.done.usage.completion_tokens == 8
    assert answer.done.made_by.engines == ("native",)


@pytest.mark.parametrize("variant", [
    {}, {"max_step_tokens": 16}, {"prefix_cache": False}, {"block_tokens": 32}, {"num_blocks": 24, "max_sequences": 8},
])  # fmt: skip
async def test_company_chunks_cache_and_preemption_change_nothing(variant: dict[str, object]):
    prompts = ["once upon a time " * k for k in (1, 3, 9, 2, 9, 1)]

    async def alone(prompt: str):
        async with running(*make_engine(prefix_cache=False)) as engine:
            return (await gather(engine, ask(prompt, 40))).text()

    expected = [await alone(p) for p in prompts]
    async with running(*make_engine(**variant)) as engine:
        for _ in range(2):
            answers = await asyncio.gather(*(gather(engine, ask(p, 40)) for p in prompts))
            assert [a.text() for a in answers] == expected
        stats = engine.stats()
    if variant.get("num_blocks") == 24:
        assert stats.preemptions_total > 0
    assert stats.kv_peak_bytes <= stats.kv_budget_bytes


async def test_a_second_time_the_prompt_comes_from_the_cache():
    async with running(*make_engine()) as engine:
        first = await gather(engine, ask("x" * 100))
        second = await gather(engine, ask("x" * 100))
        assert second.done.usage.cached_tokens == 96
        assert second.text() == first.text()
        assert engine.stats().prefix_hits_total == 96


async def test_n_samples_share_the_prompt_and_differ():
    async with running(*make_engine()) as engine:
        answer = await gather(engine, ask("y" * 100, 12, n=4))
        texts = {answer.text(i) for i in range(4)}
        assert len(texts) == 4
        assert answer.done.usage.completion_tokens == 48
        assert answer.done.usage.prompt_tokens == 100
        again = await gather(engine, ask("y" * 100, 12, n=2))
        assert {again.text(0), again.text(1)} < texts
        # 3 later samples of the first request, and both of the second, found the prompt's full blocks
        assert engine.stats().prefix_hits_total == 5 * 96


async def test_leaving_early_frees_everything_at_once():
    async with running(*make_engine(step_s=0.002)) as engine:
        streams = [engine.generate(ask("leave", 400)) for _ in range(12)]
        for stream in streams[:8]:
            async for event in stream:
                if not isinstance(event, Accepted):
                    break
        for stream in streams:
            await stream.aclose()
        await idle(engine)
        assert (await gather(engine, ask("z", 3))).text()


async def test_cancelling_the_task_frees_too():
    async with running(*make_engine(step_s=0.002)) as engine:
        tasks = [asyncio.create_task(gather(engine, ask("leave", 400))) for _ in range(12)]
        await asyncio.sleep(0.03)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_deadline_and_timeout():
    async with running(*make_engine(step_s=0.01)) as engine:
        answer = await gather(engine, ask("slow", 400, deadline_s=0.05))
        assert isinstance(answer.failed.error, DeadlineExceeded)
    async with running(*make_engine(step_s=0.01, admission=AdmissionConfig(timeout_s=0.05))) as engine:
        answer = await gather(engine, ask("slow", 400))
        assert isinstance(answer.failed.error, DeadlineExceeded)


async def test_the_line_is_bounded_and_says_when_to_come_back():
    async with running(*make_engine(step_s=0.002, max_sequences=1, admission=AdmissionConfig(max_waiting=2))) as engine:
        results = await asyncio.gather(*(gather(engine, ask("q", 20)) for _ in range(10)), return_exceptions=True)
        refused = [r for r in results if isinstance(r, QueueFull)]
        assert len(refused) == 7
        assert all(r.retry_after_s and r.retry_after_s >= 1 for r in refused)
        assert sum(1 for r in results if not isinstance(r, Exception)) == 3


async def test_priority_goes_first_and_nobody_starves():
    engine, _ = make_engine(max_sequences=1, step_s=0.0005)
    async with running(engine, _):
        order: list[str] = []

        async def one(name: str, priority: int, max_tokens: int = 4) -> None:
            await gather(engine, ask(name, max_tokens, priority=priority))
            order.append(name)

        first = asyncio.create_task(one("first", 0, 100))
        await asyncio.sleep(0.002)
        low = asyncio.create_task(one("low", 9))
        await asyncio.sleep(0.002)
        high = [asyncio.create_task(one(f"h{i}", 0)) for i in range(30)]
        await asyncio.gather(first, low, *high)
    assert 1 < order.index("low") < 10
    names = [n for n in order if n.startswith("h")]
    assert names == [f"h{i}" for i in range(30)]


async def test_a_long_prompt_does_not_stop_decodes():
    engine, executor = make_engine(max_step_tokens=16, num_blocks=64)
    async with running(engine, executor):
        steps: list[int] = []

        async def short() -> None:
            async for event in engine.generate(ask("s", 60)):
                if getattr(event, "token_ids", ()):
                    steps.append(executor.num_forwards)

        task = asyncio.create_task(short())
        await asyncio.sleep(0.005)
        await gather(engine, ask("l" * 400, 2))
        await task
    assert steps == sorted(steps)
    assert executor.num_forwards < 60 + 400 / 8


async def test_max_tokens_zero_with_echo_and_logprobs():
    async with running(*make_engine(max_logit_rows=10)) as engine:
        answer = await gather(engine, ask("abcdefghijklmnopqrstuvwxyz", 0, echo=True, logprobs=2))
        (delta,) = answer.deltas(0, "prompt")
        assert delta.text == "abcdefghijklmnopqrstuvwxyz"
        assert delta.token_ids == tuple(range(97, 123))
        assert delta.logprobs is not None
        assert len(delta.logprobs) == 26
        assert delta.logprobs[0].logprob is None
        assert all(len(p.top) == 2 for p in delta.logprobs[1:])
        scores = await engine.score(range(97, 123), top_k=2)
        assert [p.logprob for p in delta.logprobs[1:]] == pytest.approx(scores.logprobs.tolist())
        assert answer.finished() == Finished(0, "length")


async def test_echo_then_answer_for_each_sample():
    async with running(*make_engine()) as engine:
        answer = await gather(engine, ask("abc", 3, echo=True, logprobs=0, n=2))
        for index in range(2):
            assert answer.text(index, "prompt") == "abc"
            assert [len(d.logprobs or ()) for d in answer.deltas(index)] == [1, 1, 1]


async def test_scores_of_the_whole_vocabulary_are_log_probabilities():
    async with running(*make_engine(max_logit_rows=10)) as engine:
        scores = await engine.score([1, 2, 3, 4] * 10)
    assert scores.top_ids is None
    assert scores.top_logprobs.shape == (39, 384)
    np.testing.assert_allclose(np.exp(scores.top_logprobs).sum(axis=1), 1, rtol=1e-4)
    assert scores.logprobs[0] == scores.top_logprobs[0, 2]


async def test_logprobs_come_with_their_tokens():
    async with running(*make_engine()) as engine:
        answer = await gather(engine, ask("abc", 6, logprobs=3))
    for delta in answer.deltas():
        assert delta.logprobs is not None
        assert [p.token_id for p in delta.logprobs] == list(delta.token_ids)
        assert all(len(p.top) == 3 for p in delta.logprobs)


REFUSED = [
    (ask(tools=({"type": "function"},)), Unsupported, "tools"),
    (ask(response_format={"type": "json_object"}), Unsupported, "response_format"),
    (ask(sampling=Sampling(num_beams=4)), Unsupported, "num_beams"),
    (ask(adapter="x"), Unsupported, "adapter"),
    (ask(messages=(Message("user", "x", media=(MediaPart("image", "data:"),)),)), Unsupported, "messages"),
    (ask(thinking=Thinking(enabled=True)), Unsupported, "thinking"),
    (ask(n=0), Invalid, "n"),
    (ask(n=17), Invalid, "n"),
    (ask(logprobs=21), Invalid, "logprobs"),
    (ask(stop=Stop(strings=("a",) * 17)), Invalid, "stop"),
    (ask(stop=Stop(strings=("",))), Invalid, "stop"),
    (ask(prompt=""), Invalid, "prompt"),
    (ask(prompt=(1, 9999)), Invalid, "prompt"),
    (ask(messages=()), Invalid, "messages"),
    (ask(sampling=Sampling(temperature=float("nan"))), Invalid, "temperature"),
    (ask(sampling=Sampling(top_p=0.0)), Invalid, "top_p"),
    (ask(sampling=Sampling(logit_bias=((999, 1.0),))), Invalid, "logit_bias"),
    (ask(sampling=Sampling(preset="none")), Invalid, "preset"),
    (ask("x" * 600), ContextTooLong, "max_tokens"),
    (ask("x" * 500, 13), ContextTooLong, "max_tokens"),
    (ask("x" * 600, limits=Limits()), ContextTooLong, "messages"),
]


@pytest.mark.parametrize(("request_", "kind", "param"), REFUSED)
async def test_refused_by_name_before_the_first_event(request_, kind, param):
    async with running(*make_engine()) as engine:
        with pytest.raises(kind) as caught:
            await gather(engine, request_)
        assert caught.value.param == param


async def test_context_error_names_the_numbers():
    async with running(*make_engine()) as engine:
        with pytest.raises(ContextTooLong, match=r"512 .* 500 .* 13"):
            await gather(engine, ask("x" * 500, 13))


async def test_what_never_fits_the_pool_is_refused_early():
    async with running(*make_engine(num_blocks=4)) as engine:
        with pytest.raises(OutOfMemory, match="64 tokens"):
            await gather(engine, ask("x" * 60, 6))
        assert len((await gather(engine, ask("x" * 60, 5))).tokens()) == 5


async def test_draining_finishes_what_runs_and_refuses_the_rest():
    engine, executor = make_engine(step_s=0.002)
    with pytest.raises(Draining):
        await gather(engine, ask())
    await engine.start()
    task = asyncio.create_task(gather(engine, ask("d", 30)))
    await asyncio.sleep(0.01)
    stopping = asyncio.create_task(engine.stop(5))
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        await gather(engine, ask())
    assert not engine.health().ready
    assert (await task).done
    await stopping
    assert not executor.slots


async def test_stopping_without_patience_fails_the_streams():
    engine, executor = make_engine(step_s=0.002)
    await engine.start()
    task = asyncio.create_task(gather(engine, ask("d", 400)))
    await asyncio.sleep(0.01)
    await engine.stop()
    assert (await task).failed.error.code == "engine_failure"
    assert not executor.slots


async def test_a_failing_step_ends_its_requests_and_the_engine_goes_on():
    async with running(*make_engine(fail_at=5)) as engine:
        answer = await gather(engine, ask("f", 50))
        assert "told to fail" in answer.failed.error.message
        assert (await gather(engine, ask("f", 50))).done


async def test_health_is_red_while_a_step_hangs():
    engine, executor = make_engine(step_s=0.3)
    engine._stall_after_s = 0.1
    async with running(engine, executor):
        assert engine.health().ready
        task = asyncio.create_task(gather(engine, ask("h", 1)))
        await asyncio.sleep(0.2)
        assert not engine.health().ready
        await task
        async with asyncio.timeout(10):
            while not engine.health().ready:  # the answer leaves a moment before its step is over
                await asyncio.sleep(0.01)


async def test_apply_takes_over_hot_fields_only():
    engine, executor = make_engine()
    async with running(engine, executor):
        old = engine._section
        hot = old.model_copy(update={
            "kv": old.kv.model_copy(update={"prefix_cache": False, "evict_above": 0.5}),
            "admission": AdmissionConfig(max_samples=2),
            "batching": old.batching.model_copy(update={"max_step_tokens": 32}),
        })  # fmt: skip
        assert await engine.apply(Profile(engine=hot))
        with pytest.raises(Invalid):
            await gather(engine, ask(n=3))
        executor.widest = 0
        await gather(engine, ask("x" * 100))
        assert (await gather(engine, ask("x" * 100))).done.usage.cached_tokens == 0
        assert executor.widest == 32
        cold = old.batching.model_copy(update={"max_sequences": 4})
        assert not await engine.apply(Profile(engine=hot.model_copy(update={"batching": cold})))
        larger = old.batching.model_copy(update={"max_step_tokens": 128})
        assert not await engine.apply(Profile(engine=hot.model_copy(update={"batching": larger})))
        assert not await engine.apply(Profile(engine=NativeSection(checkpoint="other")))


async def test_tokenize_detokenize_count():
    async with running(*make_engine()) as engine:
        assert await engine.tokenize("abc") == [97, 98, 99]
        assert await engine.detokenize([97, 98, 99]) == "abc"
        assert await engine.count_tokens(ask("abcd")) == 4
        assert await engine.tokenize([Message("user", "a", tool_calls=(ToolCall("1", "f", "{}"),))])
        with pytest.raises(Invalid):
            await engine.detokenize([99999])
