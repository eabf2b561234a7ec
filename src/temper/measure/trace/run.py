"""Load on what is traced, and one document of what was found, as plain data.

The load is `bench`'s own: the same workloads, warm-up and generator. It opens nothing and prints nothing.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from typing import Any

from temper.measure import bench
from temper.measure.loadgen import Outcome, drive
from temper.measure.trace import limits, stages
from temper.measure.trace.advice import advise
from temper.measure.trace.limits import Limits
from temper.measure.trace.neighbours import Neighbours
from temper.measure.trace.opening import Recorded, Traced
from temper.measure.workload.plan import plan
from temper.measure.workload.schema import Closed, Open, Workload
from temper.measure.workload.text import wording_for

DEFINITIONS: dict[str, str] = {
    "stages": "Seconds of work by kind. They run on several threads and processes at once: shares are of their sum, "
    "not of the clock on the wall.",
    "request_ms": "The mean life of a complete request as its client saw it, cut into what the engine told of it; "
    "`around` is HTTP, wires and the client itself.",
    "phases": "All ops of steps that hold only prompts (prefill), only one token of each sequence (decode), or both "
    "(mixed); attention goes to prefill and decode in mixed steps too.",
    "bandwidth_share": "Bytes of weights and of cached keys and values that had to be read, each once a step, over "
    "time and the read bandwidth measured right after the run.",
    "others_cores": "Cores that other programs kept busy meanwhile, on average: what they take is in every time, so "
    "shares of the machine's limits are lower than they could be.",
    "compute_share": "Time that the multiply-adds would take at the measured peak of the instruction set, over time.",
}


async def trace(
    opening: AbstractAsyncContextManager[Traced], variants: Sequence[Workload], tell: bench.Tell
) -> dict[str, Any]:
    """Open, load, measure, close. Returns `definitions`, `workload`, `limits` and one of `runs` for each variant.

    Raises:
        TemperError: nothing answers, or the workload cannot be planned.
    """
    async with opening as traced:
        subject = traced.subject
        wording = await wording_for(subject.engine)
        first, measured = 0, []
        for variant in variants:
            workload = await bench.adapt(variant, [subject])
            users = _users(workload)
            if workload.warmup:
                tell(f"warming up with {workload.warmup} requests")
                sessions = plan(workload, wording, first=first, count=workload.warmup)
                first = sessions[-1].index + 1
                most = min(len(sessions), bench.WARMUP_USERS)
                await drive(subject.engine, sessions, concurrency=most, timeout_s=workload.timeout_s)
            sessions = plan(workload, wording, first=first)
            first = sessions[-1].index + 1
            tell(f"tracing {workload.requests} requests, {_load_text(workload)}")
            await traced.switch.start()
            neighbours, began = Neighbours(subject.pids), time.monotonic()
            run = await drive(subject.engine, sessions, concurrency=users, timeout_s=workload.timeout_s)
            others = neighbours.cores(time.monotonic() - began) if traced.is_here else None
            measured.append((workload, run.outcomes, await traced.switch.stop(), others))
        told = next((recorded.engine for _, _, recorded, _ in measured if recorded.engine is not None), None)
        tell("measuring what the machine can do")
        most_possible, reason = _limits(told, traced.is_here)
    return {
        "definitions": {**DEFINITIONS, **stages.DEFINITIONS},
        "engine": subject.name,
        "model": subject.engine.capabilities().model,
        "workload": variants[0].model_dump(mode="json"),
        "limits": None if most_possible is None else asdict(most_possible),
        "limits_reason": reason,
        "runs": [
            describe(workload, outcomes, recorded, most_possible, others)
            for workload, outcomes, recorded, others in measured
        ],
    }


def _limits(told: Mapping[str, Any] | None, is_here: bool) -> tuple[Limits | None, str]:
    """The machine's limits, or why they are not told."""
    details = {} if told is None else told["details"]
    if not is_here:
        return None, "the server is on another machine"
    if told is None or told["ops"] is None or "isa" not in details:
        return None, "the engine tells no bytes and operations to hold against limits"
    return limits.measure(details["isa"], details["threads"], details["weight_bytes"]), ""


def describe(
    workload: Workload,
    outcomes: Sequence[Outcome],
    recorded: Recorded,
    most_possible: Limits | None,
    others_cores: float | None = None,
) -> dict[str, Any]:
    """One run: everything that was told, and the advice that follows from it."""
    told = recorded.engine
    shares_process = told is not None and told["pid"] == os.getpid()
    loop_cpu_s = None if told is None or shares_process else told["loop_cpu_s"]
    found = stages.stages(told, recorded.http_cpu_s, loop_cpu_s)
    work_s = sum(stage.seconds for stage in found)
    by_phase = [] if told is None else stages.phases(told["ops"] or ())
    wall_s = max((outcome.end_s for outcome in outcomes), default=0.0)
    whole = [outcome for outcome in outcomes if outcome.failure is None]
    run: dict[str, Any] = {
        "concurrency": _users(workload),
        "rate": workload.arrivals.rate if isinstance(workload.arrivals, Open) else None,
        "requests": len(outcomes),
        "completed": len(whole),
        "failures": dict(Counter(outcome.failure for outcome in outcomes if outcome.failure is not None)),
        "wall_s": round(wall_s, 4),
        "others_cores": others_cores,
        "prompt_tokens": sum(outcome.prompt_tokens for outcome in whole),
        "cached_tokens": sum(outcome.cached_tokens for outcome in whole),
        "output_tokens": sum(outcome.output_tokens for outcome in whole),
        "output_tokens_per_s": round(sum(o.output_tokens for o in whole) / wall_s, 2) if wall_s else None,
        "work_s": round(work_s, 6),
        "stages": [_stage(stage, work_s, most_possible) for stage in found],
        "phases": [_phase(phase, most_possible) for phase in by_phase],
        "request_ms": request_ms(whole, told),
        "steps": None if told is None else _steps(told),
        "not_told": _not_told(recorded, whole, shares_process),
    }
    return {**run, "advice": advise(run)}


def _stage(stage: stages.Stage, work_s: float, most_possible: Limits | None) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "share": round(stage.seconds / work_s, 5) if work_s else 0.0,
        **_rates(stage, most_possible),
        "phase_seconds": {name: round(seconds, 6) for name, seconds in stage.phase_seconds.items()},
    }


def _phase(phase: stages.Stage, most_possible: Limits | None) -> dict[str, Any]:
    return {"phase": phase.name, **_rates(phase, most_possible)}


def _rates(stage: stages.Stage, most_possible: Limits | None) -> dict[str, Any]:
    """Seconds, bytes and operations, and how near they come to the machine's limits; null where there are none."""
    operations, seconds = stage.int8_operations + stage.bf16_operations + stage.f32_operations, stage.seconds
    told = seconds > 0 and (stage.bytes > 0 or operations > 0)
    shares: tuple[float | None, float | None] = (None, None)
    if told and most_possible is not None:
        memory_s, compute_s = most_possible.least_s(
            stage.bytes, stage.int8_operations, stage.bf16_operations, stage.f32_operations
        )
        shares = round(memory_s / seconds, 4), round(compute_s / seconds, 4)
    return {
        "seconds": round(seconds, 6),
        "bytes": stage.bytes if told else None,
        "int8_operations": stage.int8_operations if told else None,
        "bf16_operations": stage.bf16_operations if told else None,
        "f32_operations": stage.f32_operations if told else None,
        "bytes_per_s": round(stage.bytes / seconds) if told else None,
        "operations_per_s": round(operations / seconds) if told else None,
        "bandwidth_share": shares[0],
        "compute_share": shares[1],
    }


def request_ms(whole: Sequence[Outcome], told: Mapping[str, Any] | None) -> dict[str, float | None]:
    """The mean life of complete requests, in ms: `tokenizer`, `queue`, `prefill`, `decode`, `around`, `total`.

    An engine's queue begins when a request arrives, so what the tokenizer took is taken out of it where that is told.
    """
    if not whole:
        return dict.fromkeys(("tokenizer", "queue", "prefill", "decode", "around", "total"))
    total = _mean_ms([outcome.end_s - outcome.due_s for outcome in whole])
    queue = _mean_ms([outcome.queue_s for outcome in whole])
    prefill = _mean_ms([outcome.prefill_s for outcome in whole])
    decode = _mean_ms([outcome.decode_s for outcome in whole])
    if queue + prefill + decode == 0:
        return {**dict.fromkeys(("tokenizer", "queue", "prefill", "decode", "around")), "total": total}
    around = max(0.0, total - queue - prefill - decode)
    tokenizer = None
    if told is not None and "tokenize" in told["parts"]:
        count, seconds = told["parts"]["tokenize"]
        tokenizer = min(queue, seconds / count * 1000)
    return {
        "tokenizer": None if tokenizer is None else round(tokenizer, 3),
        "queue": round(queue - (tokenizer or 0.0), 3),
        "prefill": prefill,
        "decode": decode,
        "around": round(around, 3),
        "total": total,
    }


def _mean_ms(seconds: Sequence[float]) -> float:
    return round(sum(seconds) / len(seconds) * 1000, 3)


def _steps(told: Mapping[str, Any]) -> dict[str, Any]:
    """How many steps there were, of how many tokens, and the first of them one by one."""
    return {
        "count": told["num_steps"],
        "prefill_tokens": told["prefill_tokens"],
        "decode_tokens": told["decode_tokens"],
        "first": [{name: round(value, 7) for name, value in step.items()} for step in told["steps"]],
    }


def _not_told(recorded: Recorded, whole: Sequence[Outcome], shares_process: bool) -> list[dict[str, str]]:
    """What is null, and why."""
    found = []
    if recorded.engine is None:
        found.append({"what": "stages of the engine, phases, steps", "reason": recorded.why_no_engine})
    elif recorded.engine["ops"] is None:
        found.append({"what": "ops", "reason": "the engine's executor does not time its ops: they are in 'calling'"})
    if recorded.http_cpu_s is None:
        found.append({"what": stages.HTTP, "reason": recorded.why_no_http})
    if shares_process:
        found.append({"what": stages.WIRE, "reason": "the engine shares its event loop with the load generator"})
    if whole and not any(outcome.queue_s + outcome.prefill_s + outcome.decode_s for outcome in whole):
        found.append({"what": "request_ms", "reason": "the engine tells no times of its requests"})
    return found


def _users(workload: Workload) -> int | None:
    return workload.arrivals.concurrency if isinstance(workload.arrivals, Closed) else None


def _load_text(workload: Workload) -> str:
    users = _users(workload)
    if users is not None:
        return f"{users} at once"
    return f"{workload.arrivals.rate:g} a second" if isinstance(workload.arrivals, Open) else "as recorded"
