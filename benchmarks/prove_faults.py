"""How long the server needs to be whole again: after 200 clients leave, and after its worker is killed.

Each round lets 200 streaming clients leave at random moments within 1.5 s and counts the time until nothing is
running or waiting and no sequence holds KV; then kills the worker with SIGKILL under 8 open streams and counts
the time until every stream has ended with an error, and until `/ready` is green again.

    make prove faults ARGS='--rounds 5'
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import time

import httpx
from launched import Launched, launched, temper_serve, wait

import report

GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
BODY = {
    "model": "default",
    "messages": [{"role": "user", "content": "Write a very long story about a lighthouse keeper."}],
    "stream": True,
    "ignore_eos": True,
}


async def stream(client: httpx.AsyncClient, url: str, max_tokens: int) -> str:
    """The last data line."""
    last = ""
    async with client.stream("POST", f"{url}/v1/chat/completions", json=BODY | {"max_tokens": max_tokens}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                last = line.removeprefix("data: ")
    return last


async def leave(server: Launched, seed: int) -> None:
    rng = random.Random(seed)

    async def one(client: httpx.AsyncClient) -> None:
        with contextlib.suppress(TimeoutError, httpx.TransportError):
            await asyncio.wait_for(stream(client, server.url, 400), rng.uniform(0.0, 1.5))

    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        await asyncio.gather(*(one(client) for _ in range(200)))


async def kill(server: Launched) -> tuple[float, int]:
    """Seconds until all 8 streams have ended, and how many of them ended with an error."""
    async with httpx.AsyncClient(timeout=60) as client:
        streams = [asyncio.create_task(stream(client, server.url, 2000)) for _ in range(8)]
        await asyncio.sleep(1.0)
        start = time.perf_counter()
        os.kill(server.worker_pid(), signal.SIGKILL)
        endings = await asyncio.wait_for(asyncio.gather(*streams), 60)
    return time.perf_counter() - start, sum("error" in json.loads(end) for end in endings if end != "[DONE]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found: dict[str, list[float]] = {"left": [], "ended": [], "ready": []}
    errors = 0
    command, port = temper_serve()
    with launched(command, port, path="/ready") as server:
        for number in range(args.rounds):
            asyncio.run(leave(server, number))
            found["left"].append(wait(lambda: all(server.metric(gauge) == 0 for gauge in GAUGES), 60))
            ended, failed = asyncio.run(kill(server))
            errors += failed
            found["ended"].append(ended)
            found["ready"].append(ended + wait(server.is_ready, 60))
    names = {
        "left": "200 clients left, until nothing is held, s",
        "ended": "worker killed, until its 8 streams have ended, s",
        "ready": "worker killed, until /ready is green again, s",
    }
    rows = [
        {"figure": text, "median": statistics.median(found[key]), "lowest": min(found[key]), "highest": max(found[key])}
        for key, text in names.items()
    ]
    body = f"{args.rounds} rounds; {errors} of {8 * args.rounds} streams ended with an error event, as they must.\n\n"
    report.write("faults", "After clients leave and workers die", body + report.table(rows), found | {"errors": errors})


if __name__ == "__main__":
    main()
