"""Does `temper tune` find the best of a grid that is known, in a quarter of the trials?

First the whole grid of three knobs is measured on the default model, three passes over it, each point beside the
incumbent on the same prompts. It is written line by line, so it may be stopped and goes on. Then studies replay the
recording with its own noise.

    make prove tune_grid ARGS='--measure --minutes 4'    # one piece of the measuring; again until it says done
    make prove tune_grid                                 # the studies and the report
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import statistics
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import report
from temper import api
from temper.measure.workload.lengths import Fixed
from temper.measure.workload.schema import Closed, Synthetic, Workload
from temper.tuner.evaluate import Task
from temper.tuner.ledger import Ledger
from temper.tuner.live import LiveEvaluator, LoadPlan
from temper.tuner.objective import parse
from temper.tuner.run import run
from temper.tuner.search import Search
from temper.tuner.settings import Budget, Settings
from temper.tuner.simulated import RecordedEvaluator
from temper.tuner.space import Point, Space, branch_of

PASSES = 3
SEEDS = 20
"""The claim is about five; more tell luck from skill."""
REACHED = 0.95
SHARED = 3
"""Points in a row that share one block of the incumbent: they are measured within seconds of it."""
RECORDING = Path(__file__).parent / "tune_grid_recording.jsonl"
LADDERS: dict[str, tuple[Any, ...]] = {
    "max_sequences": (2, 4, 8, 16),
    "max_step_tokens": (16, 32, 64, 128, 256),
    "two_digits": ("none", "head", "all"),
}
WORKLOAD = Workload(
    name="sixteen short questions at once",
    requests=16,
    warmup=2,
    arrivals=Closed(concurrency=16),
    content=Synthetic(input_tokens=Fixed(tokens=32), output_tokens=Fixed(tokens=12)),
)


def space() -> Space:
    """Three knobs around a profile that somebody made for four careful users."""
    base = api.profile("default", max_sequences=4, max_step_tokens=32)
    return Space([branch_of("native", base, only=tuple(LADDERS), ladders=LADDERS)])


def in_order(found: Space, number: int) -> list[Point]:
    """All points of one pass: engine starts shuffled, so that a slow hour does not fall on one corner of the grid, and
    in each start the hot knob from its largest value down, which needs no other start."""
    starts: dict[Point, list[Point]] = {}
    for point in found.grid():
        starts.setdefault(found.cold_part(point), []).append(point)
    groups = list(starts.values())
    random.Random(number).shuffle(groups)
    return [point for group in groups for point in reversed(group)]


def recorded() -> list[dict[str, Any]]:
    """What is measured already."""
    return [json.loads(line) for line in RECORDING.read_text().splitlines()] if RECORDING.exists() else []


def measured_pairs() -> set[tuple[str, int]]:
    """(point, pass) of what is measured already."""
    return {(line["point"], line["pass"]) for line in recorded()}


async def measure(minutes: float) -> int:
    """Measure what is missing for so long; returns how much is missing still."""
    found = space()
    done = measured_pairs()
    missing = []
    for number in range(PASSES):
        missing += [(number, point) for point in in_order(found, number) if (point.key, number) not in done]
    evaluator = LiveEvaluator(found, api.build, LoadPlan(WORKLOAD), least_patience_s=60.0)
    end = time.monotonic() + 60 * minutes
    beside, age = None, 0
    try:
        for left, (number, point) in zip(range(len(missing), 0, -1), missing, strict=True):
            if time.monotonic() > end:
                return left
            seed = zlib.crc32(f"{number}/{point.key}".encode())
            if beside is None or age == SHARED:
                beside, age = (
                    await evaluator.measure(Task(f"{point.key}/incumbent", found.incumbent, "incumbent", seed)),
                    0,
                )
            block, age = await evaluator.measure(Task(f"{point.key}/candidate", point, "candidate", seed)), age + 1
            if beside.trouble or block.trouble:
                print(f"{point.key}: {beside.trouble or block.trouble}; later again", flush=True)
                beside = None
                continue
            line = {"point": point.key, "pass": number, "candidate": block.document(), "incumbent": beside.document()}
            with RECORDING.open("a") as sink:
                sink.write(json.dumps(line) + "\n")
            rates = [side.figures.get("output_tokens_per_s") for side in (beside, block)]
            print(f"{left} left: {dict(point.values)} {rates} start {block.start_s:.1f} s", flush=True)
        return PASSES * found.size - len(measured_pairs())
    finally:
        await evaluator.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure the grid rather than replay it")
    parser.add_argument("--minutes", type=float, default=4.0)
    args = parser.parse_args()
    if args.measure:
        left = asyncio.run(measure(args.minutes))
        print("the grid is complete" if left == 0 else f"{left} pairs are missing: run it again")
        return
    sys.exit(0 if write(replay()) else 1)


def replay() -> list[dict[str, Any]]:
    """Studies on the recording, each arm alone, over the seeds."""
    found, truth = space(), true_gains()
    if len(truth) < found.size or len(recorded()) < PASSES * found.size:
        sys.exit(f"{PASSES * found.size - len(recorded())} pairs are missing: --measure first")
    trials = found.size // 4
    rows = []
    for sampler in ("tpe", "control"):
        for seed in range(SEEDS):
            ledger = Ledger(None)
            ledger.begin("replay", {})
            settings = Settings(Budget(trials=trials - 1), seed=seed, sampler=sampler, block_requests=WORKLOAD.requests)
            evaluator = RecordedEvaluator(recorded())
            study = Search("replay", found, parse("throughput"), settings, evaluator, ledger)
            result = asyncio.run(run(study))
            side = result["winner"] or next(iter(result["evidence"]["finalists"]), None)
            values = result["incumbent"]["values"] if side is None else side["values"]
            reached = math.exp(truth[Point("native", tuple(values.items())).key] - max(truth.values()))
            rows.append(
                {"arm": sampler, "seed": seed, "trials": result["num_trials"], "of": found.size,
                 "of the best": round(reached, 4), "verdict": result["verdict"], "chosen": list(values.values())}
            )  # fmt: skip
    return rows


def true_gains() -> dict[str, float]:
    """Mean log-ratio of throughput to the incumbent at each point, over all passes."""
    return {key: statistics.fmean(values) for key, values in by_point().items()}


def by_point() -> dict[str, list[float]]:
    """Log-ratios of throughput to the incumbent, one a pass."""
    found: dict[str, list[float]] = {}
    for line in recorded():
        before, after = (line[side]["figures"]["output_tokens_per_s"] for side in ("incumbent", "candidate"))
        found.setdefault(line["point"], []).append(math.log(after / before))
    return found


def write(rows: list[dict[str, Any]]) -> bool:
    """The report; returns whether the claim holds."""
    truth = true_gains()
    noise = statistics.median(statistics.stdev(values) for values in by_point().values() if len(values) > 1)
    arms = ("tpe", "control")
    reached = {arm: [row["of the best"] for row in rows if row["arm"] == arm] for arm in arms}
    holds = statistics.fmean(reached["tpe"]) >= REACHED
    best = max(truth, key=truth.__getitem__)
    said = {
        arm: f"mean {statistics.fmean(found):.1%} (first five seeds {statistics.fmean(found[:5]):.1%}), "
        f"worst {min(found):.1%}, {sum(share >= REACHED for share in found)} of {len(found)} seeds reach {REACHED:.0%}"
        for arm, found in reached.items()
    }
    body = (
        f"{'Reached' if holds else 'NOT REACHED'}: on average 95 % of the best point's throughput in at most a quarter "
        f"of the {len(truth)} points, over {SEEDS} seeds. `temper tune`: {said['tpe']}; the control arm alone: "
        f"{said['control']}.\n\n"
        f"Best point {best}: {math.expm1(truth[best]):+.0%} against the incumbent. Points within 5 % of it: "
        f"{sum(gain >= truth[best] + math.log(0.95) for gain in truth.values())}. A paired block of a point varies by "
        f"{noise:.1%} between passes (median).\n\n{report.table(rows)}"
    )
    report.write("tune_grid", "A known grid, and what a study finds of it", body, {"rows": rows, "gains": truth})
    return holds


if __name__ == "__main__":
    main()
