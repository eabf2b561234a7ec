"""Whole answers in process, without HTTP: Temper beside OpenVINO, vLLM and llama.cpp on the same weights, in turns.

N streams begin at once with prompts of 24 tokens and write 128 each, greedy, past EOS; the prompts' time is counted.
Every engine is in a process of its own that does nothing else (peers/offline.py says what it is asked), with its
defaults and as many streams as are asked for at most; all are loaded while they take turns. vLLM runs the dequantized
weights in bf16 (float32 where the CPU has no bf16), llama.cpp the file as shipped and, for the default model,
requantized to Q4_0 (other weights: read its perplexity in `make prove peers`, which has those of all).

Broken off, it goes on with the next round. Peers are set up by benchmarks/peers/*.sh; one that is not there is named.

    make prove in_process ARGS='--peers PEERS --models default,coder --rounds 3'
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kept import Kept
from prove_kernels import built

import report
from temper import api
from temper.kernels.native import available_isas
from temper.machine import usable_cores

HERE = Path(__file__).parent
STATE = HERE.parent / "build" / "prove" / "in_process.jsonl"


@dataclass(frozen=True)
class Load:
    """Answers asked for at once."""

    name: str
    streams: int
    prompt: int
    tokens: int

    @property
    def counted(self) -> int:
        """Tokens that make its speed: those written, or those read where one alone is written."""
        return self.streams * (self.tokens if self.tokens > 1 else self.prompt)


@dataclass(frozen=True)
class Model:
    title: str
    checkpoint: str
    requantized: bool
    loads: tuple[Load, ...]

    @property
    def most_streams(self) -> int:
        return max(load.streams for load in self.loads)


def loads(streams: Sequence[int], tokens: int) -> tuple[Load, ...]:
    return (*(Load(f"{n} stream{'s' * (n > 1)}", n, 24, tokens) for n in streams), Load("prefill 512", 1, 512, 1))


MODELS = {
    "default": Model("SmolLM2 135M Instruct, Q4_1 (the default model)", api.DEFAULT_MODEL, True,
                     loads((1, 8, 32, 64), 128)),
    "coder": Model("Qwen2.5-Coder 1.5B Instruct, Q4_K_M", "qwen2.5-coder-1.5b", False, loads((1, 8, 32), 64)),
}  # fmt: skip


class Offline:
    """An engine in a process of its own, which waits between our lines."""

    def __init__(self, name: str, command: Sequence[object], **environment: str) -> None:
        self.name = name
        self._log = (STATE.parent / f"in_process_{name}.log").open("wb")
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"OMP_WAIT_POLICY": "passive"} | environment,
        )

    def seconds(self, load: Load, seed: int) -> float:
        """How long it takes.

        Raises:
            RuntimeError: it has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"generate {load.streams} {load.prompt} {load.tokens} {seed}\n")
            self._process.stdin.flush()
            return float(self._process.stdout.readline())
        except (BrokenPipeError, ValueError) as error:
            raise RuntimeError(f"{self.name} has ended: see {self._log.name}") from error

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()


def opened(model: Model, peers: Path, wanted: Sequence[str]) -> tuple[list[Offline], list[str]]:
    """The engines that are here, each loaded and warm, and those that are not."""
    weights, most = Path(api.pull(model.checkpoint).path), model.most_streams
    cores = int(usable_cores())
    offline = HERE / "peers"
    commands: dict[str, tuple[Path, list[object]]] = {
        "native": (Path(sys.executable), [offline / "offline_native.py", model.checkpoint]),
        "openvino": (peers / "openvino/env/bin/python", [offline / "offline_openvino.py", weights, most]),
        "vllm": (
            peers / "vllm_cpu/env/bin/python",
            [offline / "offline_vllm.py", peers / "vllm_cpu/models" / weights.stem, most],
        ),
    }
    if (peers / "llama_cpp/build/bin/llama-quantize").exists():
        program = built(peers)
        commands["llamacpp"] = (program, [weights, cores, 0, most])
        if model.requantized:
            other = program.parent / f"{weights.stem}.Q4_0.gguf"
            if not other.exists():
                subprocess.run([program, "quantize", weights, other], check=True)
            commands["llamacpp-q4_0"] = (program, [other, cores, 0, most])
    found, missing = [], []
    for name in wanted:
        program, rest = commands.get(name, (Path(), []))
        if not program.is_file() or (name == "vllm" and not Path(str(rest[1])).is_dir()):
            missing.append(name)
            continue
        engine = Offline(name, [program, *rest], VLLM_ENABLE_V1_MULTIPROCESSING="0")
        try:
            for load in model.loads:
                engine.seconds(Load(load.name, load.streams, load.prompt, min(load.tokens, 4)), 0)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            missing.append(name)
            continue
        print(f"{name} is loaded and warm", flush=True)
        found.append(engine)
    return found, missing


def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """The rounds of one model: seconds by round, load and engine."""
    model = MODELS[name]
    engines = given.engines or ["native", "openvino", "vllm", "llamacpp", *["llamacpp-q4_0"] * model.requantized]
    settings = {"model": name, "engines": engines, "commit": report.commit()}
    kept = Kept(STATE, settings, fresh=given.fresh)
    missing = kept.found.get("missing", [])
    left = [number for number in range(given.rounds) if f"{name} round {number}" not in kept.found]
    if left:
        running, missing = opened(model, given.peers.resolve(), engines)
        kept.add("missing", missing)
        try:
            for number in left:
                taken = {
                    load.name: {
                        one.name: one.seconds(load, number + 1)
                        for one in (running if number % 2 == 0 else running[::-1])
                    }
                    for load in model.loads
                }
                bandwidth = report.bandwidth(96 << 20, len(os.sched_getaffinity(0)))
                kept.add(
                    f"{name} round {number}",
                    {"seconds": taken, "read_bandwidth_bytes_per_s": bandwidth, "load_average": os.getloadavg()[0]},
                )
        finally:
            for one in running:
                one.close()
    return {"missing": missing, "rounds": [kept.found[f"{name} round {number}"] for number in range(given.rounds)]}


def tables(model: Model, found: Mapping[str, Any]) -> str:
    """Tokens a second by engine, then ours over theirs."""
    rounds = found["rounds"]
    names = list(rounds[0]["seconds"][model.loads[0].name])
    names.sort(key=lambda name: name != "native")
    figures, ratios = [], []
    for name in names:
        row: dict[str, Any] = {"engine": name}
        ratio: dict[str, Any] = {"native ÷": name}
        for load in model.loads:
            theirs = [one["seconds"][load.name][name] for one in rounds]
            ours = [one["seconds"][load.name].get("native", 0.0) for one in rounds]
            row[f"{load.name}, tok/s"] = statistics.median(load.counted / seconds for seconds in theirs)
            pairs = [a / b for a, b in zip(theirs, ours, strict=True) if b]
            ratio[load.name] = report.spread(pairs)
        figures.append(row)
        if name != "native":
            ratios.append(ratio)
    seen = ", ".join(f"{one['read_bandwidth_bytes_per_s'] / 1e9:.1f}" for one in rounds)
    parts = [
        f"{len(rounds)} rounds; prompts of {model.loads[0].prompt} tokens, {model.loads[0].tokens} new ones each. Read "
        f"bandwidth over 96 MiB after each round: {seen} GB/s.",
        report.table(figures),
    ]
    if ratios:
        parts += ["Ratios, round by round: median (lowest–highest).", report.table(ratios)]
    parts += [f"**{name} is missing.**" for name in found["missing"]]
    return "\n\n".join(parts)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, help="folder in which benchmarks/peers/*.sh set peers up")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--engines", type=lambda text: text.split(","), help="only these")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fresh", action="store_true", help="forget earlier rounds")
    given = parser.parse_args()
    STATE.parent.mkdir(parents=True, exist_ok=True)
    found = {name: measure(name, given) for name in given.models}
    body = [
        f"Tokens/s of whole answers, medians of the rounds; `{available_isas()[0]}` kernels, {usable_cores():g} cores."
    ]
    for name, one in found.items():
        body += [f"## {MODELS[name].title}", tables(MODELS[name], one)]
    report.write("in_process", "Temper beside OpenVINO, vLLM and llama.cpp, in process", "\n\n".join(body), found)


if __name__ == "__main__":
    main()
