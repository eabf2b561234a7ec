"""The load of one run from several processes, each with a share of the sessions and a clock in common.

For servers behind a URL: each process opens its own engine to it. They start together, and their outcomes
come back as if one process had seen them all. Each is a fresh interpreter that runs this module, makes the same
plan and takes its share; it is spoken to in JSON lines, so that the program that calls need not be importable.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from temper.engines.openai import Endpoint, OpenAIEngine
from temper.errors import EngineFailure, TemperError
from temper.measure.loadgen import Outcome, Run, drive
from temper.measure.saturation import Saturation, merged
from temper.measure.workload.plan import plan
from temper.measure.workload.schema import Closed, Workload, validate
from temper.measure.workload.text import Wording
from temper.profile import schema

HEAD_START_S = 0.1
"""Between the word to start and the start, so that every process hears it in time."""


async def drive_in_processes(
    config: schema.OpenAIEngine,
    endpoint: Endpoint,
    workload: Workload,
    wording: Wording,
    *,
    first: int,
    num_processes: int,
) -> Run:
    """Like `loadgen.drive` over the workload's plan, from `num_processes` processes.

    Fewer where there is less concurrency than that.

    Raises:
        EngineFailure: a process died or could not reach the server.
    """
    arrivals = workload.arrivals
    concurrency = arrivals.concurrency if isinstance(arrivals, Closed) else None
    count = min(num_processes, workload.requests, concurrency or num_processes)
    jobs = [
        {
            "config": config.model_dump(mode="json"),
            "url": endpoint.url,
            "api_key": endpoint.api_key,
            "workload": workload.model_dump(mode="json"),
            "ids": wording.ids,
            "first": first,
            "share": [index, count],
            "concurrency": None if concurrency is None else concurrency // count + (index < concurrency % count),
        }
        for index in range(count)
    ]
    return await asyncio.to_thread(_run_all, jobs)


def _run_all(jobs: Sequence[dict[str, Any]]) -> Run:
    workers: list[subprocess.Popen[str]] = []
    try:
        for job in jobs:
            command = [sys.executable, "-m", __name__]
            workers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            _send(workers[-1], job)
        for worker in workers:
            _receive(worker)
        begin = time.monotonic() + HEAD_START_S
        for worker in workers:
            _send(worker, begin)
        parts = [_receive(worker) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()  # what it had to say has been said, or will not be heard
            worker.communicate()
    outcomes = sorted((Outcome(**each) for part in parts for each in part["outcomes"]), key=lambda each: each.end_s)
    return Run(outcomes, merged([Saturation(**part["saturation"]) for part in parts]))


def _send(worker: subprocess.Popen[str], value: Any) -> None:
    assert worker.stdin is not None
    try:
        worker.stdin.write(json.dumps(value) + "\n")
        worker.stdin.flush()
    except BrokenPipeError:
        raise EngineFailure("a process of the load generator died") from None


def _receive(worker: subprocess.Popen[str]) -> Any:
    """What a process says; its errors are raised here."""
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line.endswith("\n"):
        raise EngineFailure("a process of the load generator died", hint="is there memory left?")
    said = json.loads(line)
    if "error" in said:
        raise EngineFailure(f"a process of the load generator failed: {said['error']}")
    return said


# -- the other side ------------------------------------------------------------------------------------


def work() -> None:
    """One process: a job comes in, an empty answer says ready, the time of the start comes in, the run goes out."""
    try:
        _say(asyncio.run(_drive(json.loads(sys.stdin.readline()))))
    except TemperError as error:
        _say({"error": str(error)})


def _say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def _drive(job: dict[str, Any]) -> dict[str, Any]:
    config = schema.OpenAIEngine(**job["config"])
    workload = validate(job["workload"])
    ids = job["ids"]
    index, count = job["share"]
    sessions = plan(workload, Wording(None if ids is None else tuple(ids)), first=job["first"])[index::count]
    engine = OpenAIEngine(config, endpoint=Endpoint(job["url"], job["api_key"]))
    await engine.start()
    try:
        _say({})
        begin = json.loads(sys.stdin.readline())
        run = await drive(engine, sessions, concurrency=job["concurrency"], timeout_s=workload.timeout_s, begin_s=begin)
    finally:
        await engine.stop()
    return {"outcomes": [asdict(outcome) for outcome in run.outcomes], "saturation": asdict(run.saturation)}


if __name__ == "__main__":
    work()
