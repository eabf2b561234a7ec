"""What `batch_invariant` costs in speed: the native engine with it off and on, interleaved, in process.

make prove invariance ARGS='--rounds 5'
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time

import report
from temper.api import build
from temper.engines.base import Engine
from temper.profile.schema import BatchingConfig, NativeEngine, Profile
from temper.types import Delta, Limits, Request, Sampling, Stop


async def answer(engine: Engine, name: str, prompt: tuple[int, ...], max_tokens: int) -> int:
    request = Request(
        id=name,
        prompt=prompt,
        sampling=Sampling(temperature=0.0),
        limits=Limits(max_tokens=max_tokens),
        stop=Stop(ignore_eos=True),
    )
    return sum([len(e.token_ids) async for e in engine.generate(request) if isinstance(e, Delta)])


async def tokens_per_s(engine: Engine, streams: int, seed: int, prompt_tokens: int, max_tokens: int) -> float:
    """Output tokens a second (prompt tokens where only one is generated)."""
    prompts = [
        tuple((seed * 7919 + i * 104729 + j * 31) % 40000 + 100 for j in range(prompt_tokens)) for i in range(streams)
    ]
    start = time.perf_counter()
    made = await asyncio.gather(*(answer(engine, f"{seed}-{i}", p, max_tokens) for i, p in enumerate(prompts)))
    seconds = time.perf_counter() - start
    return (sum(made) if max_tokens > 1 else streams * prompt_tokens) / seconds


async def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    engines = {
        name: build(Profile(engine=NativeEngine(in_process=True, batching=BatchingConfig(batch_invariant=on))))
        for name, on in (("off", False), ("on", True))
    }
    settings = {
        "1 stream": (1, 24, 128),
        "8 streams": (8, 24, 128),
        "32 streams": (32, 24, 128),
        "prefill": (4, 512, 1),
    }
    found: dict[str, dict[str, list[float]]] = {s: {"off": [], "on": []} for s in settings}
    for engine in engines.values():
        await engine.start()
        await tokens_per_s(engine, 4, 0, 24, 32)
    for number in range(1, rounds + 1):
        for setting, shape in settings.items():
            for name in ("off", "on") if number % 2 else ("on", "off"):
                found[setting][name].append(await tokens_per_s(engines[name], shape[0], number, *shape[1:]))
    for engine in engines.values():
        await engine.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    found = asyncio.run(measure(parser.parse_args().rounds))
    rows = []
    for setting, arms in found.items():
        ratios = [on / off for on, off in zip(arms["on"], arms["off"], strict=True)]
        rows.append(
            {
                "setting": setting,
                "off, tokens/s": statistics.median(arms["off"]),
                "on, tokens/s": statistics.median(arms["on"]),
                "on ÷ off": f"{statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})",
            }
        )
    seen = report.bandwidth(96 << 20, len(os.sched_getaffinity(0)))
    body = f"Median of the rounds (lowest–highest). Read bandwidth over 96 MiB: {seen / 1e9:.1f} GB/s.\n\n"
    report.write("invariance", "What batch_invariant costs", body + report.table(rows), {"figures": found})


if __name__ == "__main__":
    main()
