from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from temper.engines.kinds import Context
from temper.engines.native.remote import WorkerEngine
from temper.errors import CheckpointError, ContextTooLong, Draining, EngineDied, QueueFull
from temper.profile.schema import AdmissionConfig, BatchingConfig, NativeEngine, Profile
from temper.types import Accepted, Delta, Message
from tests.engines.native.fakes import ask, gather
from tests.waiting import until

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _importable_fakes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))


def behind_a_worker(tmp_path: Path, section: NativeEngine | None = None, **options: float) -> WorkerEngine:
    return WorkerEngine(
        section or NativeEngine(),
        Context(cache_dir=tmp_path, home=tmp_path),
        opener="tests.engines.native.fakes:open_fake",
        **options,
    )


@pytest.fixture
async def engine(tmp_path: Path):
    found = behind_a_worker(tmp_path)
    await found.start()
    yield found
    await found.stop()


def pid_of(engine: WorkerEngine) -> int:
    assert engine._process is not None
    return engine._process.pid


async def test_everything_passes_through(engine: WorkerEngine):
    assert engine.health().ready
    assert engine.capabilities().model == "fake"
    answer = await gather(engine, ask("hello", 8, logprobs=2))
    assert answer.events[0] == Accepted(0)
    assert len(answer.tokens()) == 8
    assert answer.done.usage.completion_tokens == 8
    assert all(len(d.logprobs or ()) == 1 for d in answer.deltas())
    assert await engine.tokenize("ab") == [97, 98]
    assert await engine.tokenize([Message("user", "a")])
    assert await engine.detokenize([97, 98]) == "ab"
    assert await engine.count_tokens(ask("abc")) == 3
    with pytest.raises(ContextTooLong) as caught:
        await gather(engine, ask("x" * 3000))
    assert caught.value.param == "max_tokens"
    scores = await engine.score(list(range(50)))
    assert scores.top_ids is None
    np.testing.assert_allclose(np.exp(scores.top_logprobs).sum(axis=1), 1, rtol=1e-4)
    few = await engine.score(list(range(50)), 3)
    assert few.top_ids is not None
    assert few.top_ids.shape == (49, 3)
    np.testing.assert_allclose(few.logprobs, scores.logprobs, rtol=1e-5)
    assert await engine.apply(Profile(engine=NativeEngine(checkpoint="other"))) is False
    await engine.start_trace()
    await gather(engine, ask("hello", 8))
    trace = await engine.stop_trace()
    assert trace.pid == pid_of(engine)
    assert trace.parts["forward"][0] == trace.num_steps == len(trace.steps) == 8
    await until(lambda: engine.stats().steps_total > 0)


async def test_leaving_reaches_the_worker(engine: WorkerEngine):
    for _ in range(20):
        stream = engine.generate(ask("leave", 1000))
        async for event in stream:
            if isinstance(event, Delta):
                break
        await stream.aclose()
    await until(lambda: engine.stats().num_running == engine.stats().num_waiting == 0, 1.0)
    assert engine.stats().kv_used_bytes == 0


async def test_killed_under_load_and_back_again(engine: WorkerEngine):
    tasks = [asyncio.create_task(gather(engine, ask(f"{i}", 1000))) for i in range(12)]
    await asyncio.sleep(0.2)
    first = pid_of(engine)
    total = engine.stats().steps_total
    os.kill(first, signal.SIGKILL)
    answers = await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert {type(a.failed.error) for a in answers} == {EngineDied}, answers[0].failed
    assert all(isinstance(a.events[0], Accepted) for a in answers)
    assert not engine.health().ready
    with pytest.raises(Draining) as caught:
        await gather(engine, ask())
    assert caught.value.retry_after_s
    await until(lambda: engine.health().ready)
    assert pid_of(engine) != first
    assert len((await gather(engine, ask("again", 5))).tokens()) == 5
    assert engine.stats().num_running == 0
    assert engine.stats().steps_total >= total


async def test_a_hung_worker_turns_red_and_is_replaced(tmp_path: Path):
    engine = behind_a_worker(tmp_path, beat_timeout_s=0.8, kill_after_s=1.5)
    await engine.start()
    try:
        task = asyncio.create_task(gather(engine, ask("h", 2000)))
        await asyncio.sleep(0.1)
        first = pid_of(engine)
        os.kill(first, signal.SIGSTOP)
        await until(lambda: not engine.health().ready)
        assert isinstance((await asyncio.wait_for(task, 10)).failed.error, EngineDied)
        await until(lambda: engine.health().ready)
        assert pid_of(engine) != first
        assert (await gather(engine, ask("again", 3))).done
    finally:
        await engine.stop()


async def test_a_deadline_holds_even_when_the_worker_hangs(engine: WorkerEngine):
    task = asyncio.create_task(gather(engine, ask("h", 2000, deadline_s=0.3)))
    await asyncio.sleep(0.1)
    os.kill(pid_of(engine), signal.SIGSTOP)
    assert (await asyncio.wait_for(task, 5)).failed.error.code == "deadline_exceeded"
    os.kill(pid_of(engine), signal.SIGCONT)


async def test_rejection_does_not_wait_for_the_worker(tmp_path: Path):
    section = NativeEngine(admission=AdmissionConfig(max_waiting=1), batching=BatchingConfig(max_sequences=1))
    engine = behind_a_worker(tmp_path, section)
    await engine.start()
    try:
        os.kill(pid_of(engine), signal.SIGSTOP)
        waiting = [asyncio.create_task(gather(engine, ask("w", 3))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await asyncio.wait_for(gather(engine, ask()), 1)
        os.kill(pid_of(engine), signal.SIGCONT)
        assert all(a.done for a in await asyncio.gather(*waiting))
    finally:
        await engine.stop()


async def test_stop_drains(tmp_path: Path):
    engine = behind_a_worker(tmp_path)
    await engine.start()
    task = asyncio.create_task(gather(engine, ask("d", 100)))
    await asyncio.sleep(0.1)
    worker = pid_of(engine)
    await engine.stop(10)
    assert len((await task).tokens()) == 100
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert not engine.health().ready


async def test_what_keeps_the_worker_from_starting_is_said(tmp_path: Path):
    engine = behind_a_worker(tmp_path, NativeEngine(checkpoint="broken"))
    with pytest.raises(CheckpointError, match="broken"):
        await engine.start()
    await engine.stop()


def test_the_worker_ends_with_its_parent(tmp_path: Path):
    script = f"""
import asyncio, os, signal
from pathlib import Path
from tests.engines.native.test_remote import behind_a_worker, pid_of
async def main():
    engine = behind_a_worker(Path({str(tmp_path)!r}))
    await engine.start()
    print(pid_of(engine), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    worker = int(found.stdout)
    for _ in range(200):
        status = Path(f"/proc/{worker}/status")
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        subprocess.run(["sleep", "0.01"], check=True)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker outlived its parent")


def test_the_api_process_stays_light():
    code = "import sys, temper.engines.native.remote; print([m for m in ('numpy', 'tokenizers') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert found.stdout.strip() == "[]"


async def test_a_prepared_worker_loads_before_there_is_a_loop_to_hear_it(tmp_path: Path):
    engine = behind_a_worker(tmp_path)
    engine.prepare()
    pid = pid_of(engine)
    engine.prepare()
    assert pid_of(engine) == pid
    await engine.start()
    assert pid_of(engine) == pid
    assert len((await gather(engine, ask("hello", 3))).tokens()) == 3
    await engine.stop()
    assert not Path(f"/proc/{pid}").exists()


async def test_a_prepared_worker_that_is_never_started_is_ended(tmp_path: Path):
    engine = behind_a_worker(tmp_path)
    engine.prepare()
    pid = pid_of(engine)
    await engine.stop()
    assert not Path(f"/proc/{pid}").exists()
    await engine.start()  # and may begin anew
    assert engine.health().ready
    await engine.stop()


async def test_a_start_that_is_broken_off_leaves_no_worker(tmp_path: Path):
    engine = behind_a_worker(tmp_path)
    starting = asyncio.create_task(engine.start())
    await until(lambda: engine._process is not None)
    pid = pid_of(engine)
    starting.cancel()
    await engine.stop()
    assert not Path(f"/proc/{pid}").exists()
