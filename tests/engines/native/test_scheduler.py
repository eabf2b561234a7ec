"""Whatever arrives, whenever it leaves and however small the pool: everything finishes and nothing leaks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cache

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from temper.types import Done, Sampling
from tests.engines.native.fakes import ask, gather, make_engine


@dataclass(frozen=True)
class Arrival:
    size: int
    max_tokens: int
    priority: int
    seed: int
    n: int
    echo: bool
    leaves_after: int | None
    """Events after which the client goes; None: it stays."""


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        size=st.integers(1, 90),
        max_tokens=st.integers(0, 60),
        priority=st.integers(0, 2),
        seed=st.integers(0, 3),
        n=st.sampled_from([1, 1, 1, 2, 3]),
        echo=st.booleans(),
        leaves_after=st.sampled_from([None, None, None, 1, 3, 10]),
    ),
    min_size=1,
    max_size=10,
)
SHAPES = st.fixed_dictionaries({
    "num_blocks": st.sampled_from([10, 12, 20, 64]),
    "max_sequences": st.sampled_from([1, 2, 5, 20]),
    "max_step_tokens": st.sampled_from([16, 17, 64]),
    "prefix_cache": st.booleans(),
    "block_tokens": st.sampled_from([16, 32]),
})  # fmt: skip


def request_of(arrival: Arrival):
    prompt = "".join(chr(97 + (i * i + arrival.size) % 7) for i in range(arrival.size))
    return ask(
        prompt,
        arrival.max_tokens,
        sampling=Sampling(seed=arrival.seed),
        priority=arrival.priority,
        n=arrival.n,
        echo=arrival.echo,
        logprobs=1 if arrival.echo else None,
    )


@cache
def alone(arrival: Arrival) -> tuple[str, ...]:
    async def run() -> tuple[str, ...]:
        engine, _ = make_engine(prefix_cache=False, num_blocks=200, max_logit_rows=200, max_step_tokens=200)
        await engine.start()
        answer = await gather(engine, request_of(arrival))
        await engine.stop()
        return tuple(answer.text(i) for i in range(arrival.n))

    return asyncio.run(run())


async def client(engine, arrival: Arrival, found: dict[Arrival, list[tuple[str, ...]]]) -> None:
    request = request_of(arrival)
    if arrival.leaves_after is None:
        answer = await gather(engine, request)
        assert isinstance(answer.events[-1], Done), answer.events[-1]
        usage = answer.done.usage
        assert usage.prompt_tokens == arrival.size
        assert usage.completion_tokens == arrival.max_tokens * arrival.n
        if arrival.echo:
            assert [len(d.logprobs or ()) for d in answer.deltas(0, "prompt")] == [arrival.size]
        found.setdefault(arrival, []).append(tuple(answer.text(i) for i in range(arrival.n)))
        return
    stream, seen = engine.generate(request), 0
    async for _ in stream:
        seen += 1
        if seen >= arrival.leaves_after:
            break
    await stream.aclose()


@given(ARRIVALS, SHAPES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_everything_finishes_alike_and_nothing_leaks(arrivals: list[Arrival], shape: dict[str, object]):
    found: dict[Arrival, list[tuple[str, ...]]] = {}

    async def run() -> None:
        engine, executor = make_engine(context_length=150, max_logit_rows=24, **shape)
        await engine.start()
        pool = engine._scheduler.cache.pool
        await asyncio.wait_for(asyncio.gather(*(client(engine, a, found) for a in arrivals)), 30)
        for _ in range(400):
            if not engine._publisher.jobs and not engine._stepper._inbox:
                break
            await asyncio.sleep(0.005)
        assert pool.num_held == 0
        assert pool.num_free + engine._scheduler.cache.num_idle == pool.num_blocks
        assert pool.peak_used <= pool.num_blocks
        assert not executor.slots
        assert executor.widest <= shape["max_step_tokens"]
        assert engine._admission.num_running == engine._admission.num_waiting == 0
        stats = engine.stats()
        assert (stats.num_running, stats.num_waiting, stats.kv_usage) == (0, 0, 0.0)
        await engine.stop()

    asyncio.run(run())
    for arrival, answers in found.items():
        assert set(answers) == {alone(arrival)}


async def test_requests_of_one_priority_start_in_order():
    engine, _ = make_engine(max_sequences=2, num_blocks=12)
    await engine.start()
    started: list[int] = []

    async def one(i: int) -> None:
        async for event in engine.generate(ask("p" * (5 + 17 * (i % 4)), 5)):
            if type(event).__name__ == "Started":
                started.append(i)

    await asyncio.gather(*(one(i) for i in range(30)))
    await engine.stop()
    assert started == list(range(30))


async def test_short_prompts_overtake_a_long_one():
    engine, _ = make_engine(max_step_tokens=16, step_s=0.001)
    await engine.start()
    done: list[str] = []

    async def one(name: str, size: int) -> None:
        await gather(engine, ask(name * size, 1))
        done.append(name)

    long = asyncio.create_task(one("l", 400))
    await asyncio.sleep(0.004)
    await asyncio.gather(long, one("s", 10), one("t", 10))
    await engine.stop()
    assert done[-1] == "l"
