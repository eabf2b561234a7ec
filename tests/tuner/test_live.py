"""The evaluator with real engines, on engines that behave as told."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from temper.engines import kinds
from temper.engines.base import Engine
from temper.errors import EngineDied, EngineFailure, OutOfMemory, ProfileError, TemperError
from temper.measure.loadgen import Outcome
from temper.measure.workload.lengths import Fixed
from temper.measure.workload.schema import Closed, Synthetic, Workload
from temper.profile.schema import FakeEngine, ProcessEngine, Profile
from temper.tuner.evaluate import Block, Task
from temper.tuner.ledger import Ledger
from temper.tuner.live import LiveEvaluator, LoadPlan, classify, figures, is_garbage, misses
from temper.tuner.objective import Limit, parse
from temper.tuner.run import run
from temper.tuner.search import Search
from temper.tuner.settings import Budget, Settings
from temper.tuner.space import Point, Space, branch_of
from tests.tuner.studies import default

LOAD = Workload(
    requests=8,
    warmup=1,
    arrivals=Closed(concurrency=4),
    content=Synthetic(input_tokens=Fixed(tokens=8), output_tokens=Fixed(tokens=6)),
    ignore_eos=False,
    timeout_s=2.0,
)
BROKEN = {8: "words+crash@2", 16: "words+garbage@0", 32: "words+stall@2", 64: "words+error-507"}
SCRIPTS = {2: "words", 4: "words"} | BROKEN
"""What an engine says, by `max_sequences`."""
SPACE = Space([branch_of("native", default(), only=("max_sequences",), ladders={"max_sequences": tuple(SCRIPTS)})])


def build(profile: Profile) -> Engine:
    many = profile.engine.batching.max_sequences
    fake = FakeEngine(script=SCRIPTS[many], itl_ms=20.0 / many, max_sequences=64)
    return kinds.build(Profile(engine=fake), context=kinds.Context(Path("/nowhere"), Path("/nowhere")))


def at(value: int) -> Point:
    return Point("native", (("engine.batching.max_sequences", value),))


def evaluator(**options: Any) -> LiveEvaluator:
    limits = (Limit("ttft_ms.p90", "<=", 1e6),)
    return LiveEvaluator(SPACE, build, LoadPlan(LOAD, limits), **({"least_patience_s": 2.0} | options))


async def measured(*points: Point, **options: Any) -> list[Block]:
    found = evaluator(**options)
    try:
        tasks = [Task(f"t/{n}/candidate", point, "candidate", n) for n, point in enumerate(points)]
        return [await found.measure(task) for task in tasks]
    finally:
        await found.close()


def test_a_block_has_figures_counts_and_what_it_cost():
    first, again = asyncio.run(measured(at(2), at(2)))
    assert first.trouble is None
    assert first.figures["output_tokens_per_s"] > 0
    assert first.figures["answer_tokens"] == 6
    assert first.figures["cost_per_million_tokens"] > 0
    assert (first.num_requests, first.num_failed) == (8, 0)
    assert first.misses == {"ttft_ms.p90<=1e+06": (0, 8)}
    assert first.start_s > 0
    assert again.start_s == 0  # the engine was there


@pytest.mark.parametrize(("value", "kind"), [(8, "crash"), (16, "garbage"), (32, "hang"), (64, "out_of_memory")])
def test_every_failure_is_an_answer_with_its_kind(value, kind):
    broken, after = asyncio.run(measured(at(value), at(4)))
    assert broken.trouble is not None
    assert broken.trouble.kind == kind
    assert broken.trouble.reason
    assert after.trouble is None  # and the next point gets a fresh engine


def test_a_whole_study_over_engines_that_break():
    ledger = Ledger(None)
    ledger.begin("live", {})
    search = Search(
        "live",
        SPACE,
        parse("throughput"),
        Settings(Budget(trials=5), block_requests=8, self_test_units=3, units=3, most_pairs=2),
        evaluator(),
        ledger,
    )
    found = asyncio.run(run(search))
    assert {kind for kind, count in found["evidence"]["troubles"].items() if count} == {
        "crash", "garbage", "hang", "out_of_memory",
    }  # fmt: skip
    assert found["num_trials"] == 5
    assert found["verdict"] in ("pass", "inconclusive", "fail")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ProfileError("no"), "refused"),
        (OutOfMemory("no"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (EngineFailure("the server ended with code -9"), "out_of_memory"),
        (EngineFailure("RuntimeError: [enforce fail] std::bad_alloc"), "out_of_memory"),
        (TimeoutError(), "hang"),
        (EngineDied("gone"), "crash"),
        (TemperError("what"), "crash"),
    ],
)
def test_errors_have_a_kind(error, kind):
    assert classify(error).kind == kind


def test_a_long_log_is_judged_whole_and_told_by_its_end():
    log = (
        "the server ended with code 1; it wrote last:\n"
        + "  File somewhere\n" * 200
        + "RuntimeError: CUDA out of memory"
    )
    trouble = classify(EngineDied(log))
    assert trouble.kind == "out_of_memory"
    assert trouble.reason.startswith("the server ended with code 1")
    assert trouble.reason.endswith("RuntimeError: CUDA out of memory")
    assert len(trouble.reason) < 700


def test_text_is_told_from_noise():
    assert not is_garbage("Drei Flüsse: Rhein, Elbe, 长江.\n")
    assert is_garbage("")
    assert is_garbage("a\ufffd\ufffd\ufffd\x00")


def test_failed_requests_are_beyond_every_limit():
    whole = Outcome("a", 0.0, 0.0, end_s=1.0, arrivals_s=[0.2, 0.4], output_tokens=2)
    failed = Outcome("b", 0.0, 0.0, end_s=1.0, failure="engine_died")
    assert misses([whole, failed], Limit("ttft_ms.p90", "<=", 300.0)) == (1, 2)
    assert misses([whole, failed], Limit("ttft_ms.p90", "<=", 100.0)) == (2, 2)
    found = figures([whole, failed], LOAD, 1.0)
    assert found["ttft_ms.p90"] == pytest.approx(200.0)


def test_a_server_of_another_make_is_tuned_by_its_flags(tmp_path):
    server = Path(__file__).parent.parent / "engines" / "process" / "small_server.py"
    section = ProcessEngine(server="llama-server", command=(sys.executable, str(server), "{port}"), stop_grace_s=2.0)
    space = Space([branch_of("imported", Profile(engine=section), only=("parallel",), ladders={"parallel": (1, 4)})])
    assert space.size == 3  # 1, 4, and not given at all
    context = kinds.Context(tmp_path, tmp_path, environ={"PATH": os.environ["PATH"]})
    ledger = Ledger(None)
    ledger.begin("imported", {})
    chosen = Settings(Budget(trials=2), block_requests=4, self_test_units=3, units=3, most_pairs=1)
    measuring = LiveEvaluator(space, lambda profile: kinds.build(profile, context=context), LoadPlan(LOAD))
    found = asyncio.run(run(Search("imported", space, parse("p99 -5 %"), chosen, measuring, ledger)))
    assert found["num_trials"] == 2
    assert found["evidence"]["troubles"] == {}
    assert {trial["values"]["engine.flags.parallel"] for trial in found["trials"]} == {None, 1, 4}
    assert all(trial["figures"]["rss_bytes"] > 0 for trial in found["trials"])
