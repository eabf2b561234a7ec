from __future__ import annotations

import json
import os

import pytest

from temper.engines.fake import FakeEngine
from temper.measure.loadgen import Outcome
from temper.measure.trace import opening, run, stages
from temper.measure.trace.limits import Limits
from temper.measure.trace.opening import Recorded
from temper.measure.trace.page import page
from temper.measure.workload.options import Load
from temper.measure.workload.schema import Workload
from temper.profile import schema
from tests.engines.native.fakes import make_engine

LIMITS = Limits(1e9, 1e10, 1e10, 1e9, "any", 2, 1000)
TOLD = {
    "pid": 1,
    "window_s": 2.0,
    "loop_cpu_s": 0.1,
    "parts": {"forward": (3, 1.0), "tokenize": (2, 0.004), "schedule": (3, 0.001)},
    "ops": [
        {"label": "linear 8x8 up_proj", "phase": "decode", "calls": 9, "ns": 800_000_000, "bytes": 600_000_000,
         "operations": 10**9, "arithmetic": "int8"},
        {"label": "attention", "phase": "prefill", "calls": 9, "ns": 100_000_000, "bytes": 0, "operations": 9 * 10**7,
         "arithmetic": "f32"},
    ],
    "num_steps": 3,
    "prefill_tokens": 10,
    "decode_tokens": 2,
    "steps": [{"began_s": 0.1, "prefill_tokens": 10, "decode_tokens": 0, "schedule": 0.1, "forward": 0.5},
              {"began_s": 0.7, "prefill_tokens": 0, "decode_tokens": 1, "schedule": 0.1, "forward": 0.1}],
    "details": {"isa": "avx2", "threads": 2, "weight_bytes": 1000},
}  # fmt: skip


def outcome(**fields: float) -> Outcome:
    return Outcome("x", 0.0, 0.0, **{"end_s": 0.1, "queue_s": 0.012, "prefill_s": 0.02, "decode_s": 0.06} | fields)


def described(recorded: Recorded, outcomes: list[Outcome], limits: Limits | None = LIMITS) -> dict:
    return run.describe(Workload(requests=len(outcomes)), outcomes, recorded, limits)


def test_shares_add_up_and_are_held_against_the_machine():
    found = described(Recorded(TOLD, "", 0.2, ""), [outcome()])
    assert sum(stage["share"] for stage in found["stages"]) == pytest.approx(1, abs=1e-4)
    mlp = next(stage for stage in found["stages"] if stage["stage"] == stages.MLP)
    assert mlp["bandwidth_share"] == 0.75
    assert mlp["compute_share"] == 0.125
    assert found["phases"][0]["phase"] == "prefill"
    assert found["phases"][0]["compute_share"] == 0.9
    assert [one["finding"] for one in found["advice"]] == [
        "prefill is at 90% of peak arithmetic", "decode is at 75% of memory bandwidth",
        "HTTP and the wire to the worker take 23% of the work",
    ]  # fmt: skip
    assert found["not_told"] == []


def test_a_request_s_life_is_cut_without_overlap():
    found = described(Recorded(TOLD, "", 0.2, ""), [outcome(), outcome(), outcome(failure="timeout", end_s=9.0)])
    assert found["request_ms"] == {
        "tokenizer": 2.0, "queue": 10.0, "prefill": 20.0, "decode": 60.0, "around": 8.0, "total": 100.0,
    }  # fmt: skip
    assert (found["completed"], found["failures"]) == (2, {"timeout": 1})


def test_what_is_null_has_a_reason():
    silent = outcome(queue_s=0, prefill_s=0, decode_s=0)
    found = described(Recorded(None, "no trace", None, "no server"), [silent], None)
    assert found["stages"] == found["phases"] == []
    assert found["request_ms"]["total"] == 100.0
    assert found["request_ms"]["queue"] is None
    assert {one["reason"] for one in found["not_told"]} == {
        "no trace", "no server", "the engine tells no times of its requests",
    }  # fmt: skip


def test_an_engine_in_our_process_has_no_wire():
    found = described(Recorded({**TOLD, "pid": os.getpid()}, "", None, "in process"), [outcome()])
    assert stages.WIRE not in [stage["stage"] for stage in found["stages"]]
    assert any(one["what"] == stages.WIRE for one in found["not_told"])


VARIANTS = Load(requests=3, warmup=1, input_tokens=20, output_tokens=5, concurrency=(1, 2)).variants()


async def test_the_native_engine_tells_its_stages():
    engine, _ = make_engine(max_step_tokens=256)
    found = await run.trace(opening.in_process(engine), VARIANTS, lambda text: None)
    first, second = found["runs"]
    assert (first["concurrency"], second["concurrency"]) == (1, 2)
    assert first["completed"] == 3
    assert first["others_cores"] is None or first["others_cores"] >= 0
    assert first["steps"]["count"] == 15
    assert first["steps"]["prefill_tokens"] == first["prompt_tokens"] - first["cached_tokens"]
    assert stages.CALLING in [stage["stage"] for stage in first["stages"]]
    assert found["limits"] is None
    assert "no bytes and operations" in found["limits_reason"]
    assert any("does not time its ops" in one["reason"] for one in first["not_told"])
    json.dumps(found, allow_nan=False)


async def test_another_engine_tells_what_its_answers_do():
    engine = FakeEngine(schema.FakeEngine(script="words", ttft_ms=2, itl_ms=1))
    found = await run.trace(opening.in_process(engine), VARIANTS[:1], lambda text: None)
    (one,) = found["runs"]
    assert one["stages"] == []
    assert one["request_ms"]["decode"] > 0
    assert one["not_told"][0]["reason"] == "engine 'fake' does not tell where its own time goes"


def test_the_page_shows_it_all():
    found = {
        "model": "<b>m</b>", "definitions": run.DEFINITIONS, "workload": {}, "limits": None, "limits_reason": "why not",
        "runs": [described(Recorded(TOLD, "", 0.2, ""), [outcome()]), run.describe(Workload(), [], Recorded(), None)],
    }  # fmt: skip
    text = page(found)
    assert "&lt;b&gt;m" in text
    assert "<b>m</b>" not in text
    assert "No limits of the machine: why not" in text
    assert 'aria-label="Roofline"' not in text
    limits = {"read_bytes_per_s": 1e9, "int8_operations_per_s": 1e10, "bf16_operations_per_s": 1e9,
              "f32_operations_per_s": 1e9, "isa": "any", "threads": 2, "working_set_bytes": 1000}  # fmt: skip
    whole = page({**found, "limits": limits})
    for words in ("A request: 100 ms", 'aria-label="Roofline"', "The first 2 of 3 steps", "decode is at 75%"):
        assert words in whole
    assert "nan" not in whole
