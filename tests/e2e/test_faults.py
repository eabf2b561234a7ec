"""What goes wrong in real life: clients that leave, a worker that dies, memory that runs out, a polite kill.

How fast it is whole again is a figure (`make prove faults`); that it is whole is the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Server, serving, wait_ready, wait_until

STORY = "Write a very long story about a lighthouse keeper, his dog, and the storm of the century."


def chat(prompt: str = STORY, **fields: object) -> dict[str, object]:
    return {"model": "default", "messages": [{"role": "user", "content": prompt}], **fields}


@pytest.fixture
def fresh(tmp_path: Path):
    """A server of this test's own, because the test is going to hurt it."""
    with serving(tmp_path) as running:
        yield running


async def read_stream(
    client: httpx.AsyncClient, url: str, body: dict[str, object], lines: list[str] | None = None
) -> list[str]:
    """The data lines of a stream, until it ends; into `lines` as they come."""
    lines = [] if lines is None else lines
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body | {"stream": True}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                lines.append(line.removeprefix("data: "))
    return lines


async def test_200_clients_that_leave_hold_nothing(server: Server):
    rng = random.Random(7)

    async def leave_early(client: httpx.AsyncClient) -> None:
        body = chat(max_tokens=400, ignore_eos=True)
        patience_s = rng.uniform(0.0, 1.5)
        with contextlib.suppress(TimeoutError, httpx.TransportError):
            await asyncio.wait_for(read_stream(client, server.url, body), patience_s)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        await asyncio.gather(*(leave_early(client) for _ in range(200)))

    def nothing_held() -> bool:
        gauges = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        return all(server.metric(gauge) == 0 for gauge in gauges)

    wait_until(nothing_held, 15.0, "running, waiting and KV in use return to zero")


async def test_a_killed_worker_fails_its_streams_and_comes_back(fresh: Server):
    async with httpx.AsyncClient(timeout=60) as client:
        seen: list[list[str]] = [[] for _ in range(8)]
        streams = [
            asyncio.create_task(read_stream(client, fresh.url, chat(max_tokens=2000, ignore_eos=True), lines))
            for lines in seen
        ]
        await asyncio.to_thread(wait_until, lambda: all(seen), 60.0, "every stream has begun")
        os.kill(fresh.worker_pid(), signal.SIGKILL)
        endings = await asyncio.wait_for(asyncio.gather(*streams), 60)
        for lines in endings:
            assert "[DONE]" not in lines
            assert "error" in json.loads(lines[-1])
        await asyncio.to_thread(wait_ready, fresh, 60.0)
        answer = await client.post(f"{fresh.url}/v1/chat/completions", json=chat("Say hello.", max_tokens=8))
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] > 0


async def test_kv_exhausted_by_long_requests_preempts_and_finishes(tmp_path: Path):
    budget = 24 << 20
    overrides = ["--set", f"engine.kv.budget_bytes={budget}", "--set", "engine.batching.context_length=512"]
    with serving(tmp_path, *overrides) as small:
        async with httpx.AsyncClient(timeout=300) as client:
            body = chat(max_tokens=300, ignore_eos=True)
            answers = await asyncio.gather(
                *(client.post(f"{small.url}/v1/chat/completions", json=body) for _ in range(6))
            )
        assert [a.status_code for a in answers] == [200] * 6
        assert {a.json()["usage"]["completion_tokens"] for a in answers} == {300}
        assert small.metric("vllm:num_preemptions_total") > 0
        assert small.metric("temper:kv_peak_bytes") <= budget


async def test_sigterm_lets_running_streams_finish(fresh: Server):
    async with httpx.AsyncClient(timeout=60) as client:
        stream = asyncio.create_task(read_stream(client, fresh.url, chat(max_tokens=150, ignore_eos=True)))
        await asyncio.sleep(0.3)
        fresh.process.send_signal(signal.SIGTERM)
        lines = await stream
    assert lines[-1] == "[DONE]"
    assert await asyncio.to_thread(fresh.process.wait, 60) == 0


async def test_more_than_the_queue_holds_is_rejected_at_once(tmp_path: Path):
    with serving(
        tmp_path, "--set", "engine.admission.max_waiting=2", "--set", "engine.batching.max_sequences=1"
    ) as tight:
        async with httpx.AsyncClient(timeout=120) as client:
            body = chat(max_tokens=64, ignore_eos=True)
            answers = await asyncio.gather(
                *(client.post(f"{tight.url}/v1/chat/completions", json=body) for _ in range(12))
            )
        rejected = [a for a in answers if a.status_code in (429, 503)]
        assert rejected
        assert all(int(a.headers["retry-after"]) >= 1 for a in rejected)
        assert all(a.status_code == 200 for a in answers if a not in rejected)
