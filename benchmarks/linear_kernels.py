"""Times all linear layers of a model of given sizes, for several numbers of rows, in each arithmetic.

    python benchmarks/linear_kernels.py [--shape smollm2|qwen-1.5b] [--isa amx] [--arithmetic int8 bf16]
        [--threads 2] [--json]

Weights are random. With one thread the times are CPU times; arithmetics and sets take turns. Beside each figure
stands the read bandwidth that this machine gave in the same minute (numpy adding up a large array, one thread),
because both vary from hour to hour.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass

import numpy as np

from temper.kernels import _native
from temper.kernels.stored import BLOCKS


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    kv: int
    mlp: int
    vocab: int
    body_format: str
    head_format: str


SHAPES = {
    "smollm2": Shape(30, 576, 192, 1536, 49152, "q4_1", "q8_0"),
    "qwen-1.5b": Shape(28, 1536, 256, 8960, 151936, "q4_k", "q6_k"),
}


@dataclass(frozen=True)
class Figure:
    isa: str
    arithmetic: str
    threads: int
    rows: int
    head: bool
    median_ms: float
    best_ms: float
    tokens_per_s: float
    gops: float
    weight_gb_per_s: float


def random_weight(fmt: str, n: int, k: int, rng: np.random.Generator) -> _native.PackedWeight:
    block_size, block_bytes = BLOCKS[fmt]
    blocks = rng.integers(0, 256, (n * k // block_size, block_bytes), dtype=np.uint8)
    halves = {"q6_k": [208]}.get(fmt, [0, 2] if fmt in ("q4_1", "q5_1", "q4_k", "q5_k") else [0])
    for at in halves:
        blocks[:, at : at + 2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    return _native.PackedWeight(fmt, blocks.reshape(-1), n, k)


def matrices(shape: Shape) -> list[tuple[str, int, int]]:
    h, kv, mlp = shape.hidden, shape.kv, shape.mlp
    layer = [(h, h), (kv, h), (kv, h), (h, h), (mlp, h), (mlp, h), (h, mlp)]
    body = [(shape.body_format, n, k) for _ in range(shape.layers) for n, k in layer]
    return [*body, (shape.head_format, shape.vocab, h)]


def read_bandwidth() -> float:
    data = np.ones(1 << 24, np.int64)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        data.sum()
        times.append(time.perf_counter() - begin)
    return data.nbytes / min(times) / 1e9


def figure_of(
    seconds: list[float], used: list[_native.PackedWeight], rows: int, kind: tuple[str, str], threads: int, head: bool
) -> Figure:
    best, median = min(seconds), float(np.median(seconds))
    ops = 2 * rows * sum(w.n * w.k for w in used)
    num_bytes = sum(w.num_bytes for w in used)
    return Figure(
        *kind,
        threads,
        rows,
        head,
        median * 1e3,
        best * 1e3,
        rows / median,
        ops / median / 1e9,
        num_bytes / median / 1e9,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--isa", choices=_native.kernel_sets(), action="append")
    parser.add_argument("--arithmetic", choices=("int8", "bf16"), nargs="+", default=["int8", "bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--prefill", type=int, default=512, help="rows of a pass without the head; 0 for none")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    weights = [random_weight(*matrix, rng) for matrix in matrices(SHAPES[args.shape])]
    figures = []
    runs = [(rows, True) for rows in args.rows] + [(args.prefill, False)] * bool(args.prefill)
    kinds = [(isa, name) for isa in args.isa or _native.kernel_sets()[:1] for name in args.arithmetic]
    for rows, head in runs:
        repeats = max(2, min(10, 100 // rows))
        used = weights if head else weights[:-1]
        seconds: dict[tuple[str, str], list[float]] = {kind: [] for kind in kinds}
        for _ in range(args.rounds):
            for isa, name in kinds:
                seconds[isa, name] += _native.time_linear(used, rows, isa, args.threads, repeats, name)
        for isa, name in kinds:
            figure = figure_of(seconds[isa, name], used, rows, (isa, name), args.threads, head)
            figures.append(figure)
            if not args.json:
                print(
                    f"{isa:7}{name:5} {args.threads} threads {rows:4} rows{'' if head else ', no head'}: "
                    f"{figure.median_ms:8.2f} ms (best {figure.best_ms:.2f})  {figure.tokens_per_s:7.0f} tok/s  "
                    f"{figure.gops:6.0f} Gop/s  {figure.weight_gb_per_s:5.1f} GB/s",
                    flush=True,
                )
    bandwidth = read_bandwidth()
    if args.json:
        document = {"schema": "temper.linear_kernels/1", "shape": args.shape, "read_gb_per_s_one_thread": bandwidth}
        print(json.dumps(document | {"figures": [asdict(figure) for figure in figures]}))
    else:
        print(f"numpy reads {bandwidth:.1f} GB/s with one thread")


if __name__ == "__main__":
    main()
