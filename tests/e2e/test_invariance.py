"""With `batch_invariant` on, a seeded request gives the same tokens whatever happens around it."""

from __future__ import annotations

import asyncio

import pytest

from temper.api import build
from temper.engines.base import Engine
from temper.profile.schema import BatchingConfig, KvConfig, NativeEngine, Profile
from temper.types import Delta, Done, Limits, Message, Request, Sampling, Stop

LONG_PROMPT = "The keeper wrote in his book: " + "the sea was grey and the wind came from the north. " * 30


def native(batch_invariant: bool = True, kv: dict[str, object] | None = None, **batching: object) -> Profile:
    return Profile(
        engine=NativeEngine(
            in_process=True,
            batching=BatchingConfig(batch_invariant=batch_invariant, **batching),
            kv=KvConfig(**(kv or {})),
        )
    )


def seeded(name: str = "seeded", prompt: str = LONG_PROMPT) -> Request:
    return Request(
        id=name,
        messages=(Message("user", prompt),),
        sampling=Sampling(temperature=0.8, top_p=0.95, seed=1234),
        limits=Limits(max_tokens=96),
        stop=Stop(ignore_eos=True),
    )


async def tokens_of(engine: Engine, request: Request) -> tuple[list[int], Done]:
    tokens: list[int] = []
    async for event in engine.generate(request):
        if isinstance(event, Delta):
            tokens += event.token_ids
        last = event
    assert isinstance(last, Done), last
    return tokens, last


async def run(profile: Profile, others: int = 0, again: bool = False) -> tuple[list[int], Done]:
    engine = build(profile)
    await engine.start()
    try:
        company = [
            asyncio.create_task(
                tokens_of(engine, seeded(f"other-{i}", f"Tell me about the number {i}. " * (1 + i % 9)))
            )
            for i in range(others)
        ]
        found = await tokens_of(engine, seeded())
        if again:
            found = await tokens_of(engine, seeded("again"))
        await asyncio.gather(*company)
        return found
    finally:
        await engine.stop()


@pytest.fixture(scope="module")
def alone() -> list[int]:
    tokens, done = asyncio.run(run(native(kv={"prefix_cache": False})))
    assert len(tokens) == 96
    assert done.usage.cached_tokens == 0
    return tokens


async def test_among_31_others(alone: list[int]):
    tokens, _ = await run(native(), others=31)
    assert tokens == alone


async def test_chunked(alone: list[int]):
    tokens, _ = await run(native(max_step_tokens=48, kv={"prefix_cache": False}))
    assert tokens == alone


async def test_with_a_prefix_hit(alone: list[int]):
    tokens, done = await run(native(), again=True)
    assert done.usage.cached_tokens > 0
    assert tokens == alone


async def test_preempted(alone: list[int]):
    profile = native(kv={"budget_bytes": 20 << 20, "prefix_cache": False}, context_length=640)
    engine = build(profile)
    await engine.start()
    try:
        rivals = [asyncio.create_task(tokens_of(engine, seeded(f"rival-{i}"))) for i in range(3)]
        results = await asyncio.gather(*rivals)
    finally:
        await engine.stop()
    assert sum(done.timings.num_preemptions for _, done in results) > 0
    assert all(tokens == alone for tokens, _ in results)


async def test_off_same_company_same_tokens():
    first, _ = await run(native(batch_invariant=False), others=7)
    second, _ = await run(native(batch_invariant=False), others=7)
    assert first == second
