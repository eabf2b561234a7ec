"""A process engine over a small real server that fails in every way by name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from temper.engines.kinds import Context
from temper.engines.process import ProcessEngine
from temper.engines.process.launch import group_members
from temper.errors import EngineDied, EngineFailure, Invalid, Rejected
from temper.profile import schema
from temper.types import Delta, Done, Failed, Limits, Request
from tests.waiting import until

SERVER = Path(__file__).with_name("small_server.py")


def engine_of(home: Path, *faults: str, environ: dict[str, str] | None = None, look_s: float = 0.05, **fields):
    timing = {name: fields.pop(name) for name in ("sleep", "now", "pick_port") if name in fields}
    command = fields.pop("command", (sys.executable, str(SERVER), "{port}", *faults))
    section = schema.ProcessEngine(command=command, **{"stop_grace_s": 2.0, "first_backoff_s": 0.05} | fields)
    environ = {"PATH": os.environ["PATH"]} if environ is None else environ
    return ProcessEngine(section, Context(home, home, environ=environ), look_s=look_s, weigh_s=0.0, **timing)


@asynccontextmanager
async def running(engine: ProcessEngine) -> AsyncIterator[ProcessEngine]:
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def collect(engine: ProcessEngine, prompt: str = "hello") -> list:
    return [event async for event in engine.generate(Request("r", prompt=prompt, limits=Limits(max_tokens=4)))]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- a good life -------------------------------------------------------------------------------------


async def test_it_answers_and_says_what_it_is(tmp_path):
    async with running(engine_of(tmp_path)) as engine:
        events = await collect(engine)
        assert "".join(event.text for event in events if isinstance(event, Delta)) == " 0 1 2 3"
        assert isinstance(events[-1], Done)
        assert events[-1].made_by.engines[0] == "process"
        assert engine.capabilities().model == "small"
        await until(lambda: engine.stats().details["pss_bytes"] > 1 << 20)
        told = engine.stats()
        assert (told.prompt_tokens_total, told.generation_tokens_total) == (1, 4)
        assert told.details["starts_total"] == 1
        assert engine.health().ready
        leader = told.details["pid"]
        assert len(group_members(leader)) == 2
    assert not group_members(leader)
    assert not engine.health().ready
    with pytest.raises(Rejected):
        await collect(engine)


async def test_a_slow_start_is_waited_for(tmp_path):
    began = time.monotonic()
    async with running(engine_of(tmp_path, "slow")) as engine:
        assert time.monotonic() - began > 0.7
        assert isinstance((await collect(engine))[-1], Done)


async def test_what_it_leaves_behind_is_ended(tmp_path):
    async with running(engine_of(tmp_path, "child")) as engine:
        await until(lambda: any(line.startswith("child") for line in engine.last_lines()))
        child = int(next(line for line in engine.last_lines() if line.startswith("child")).split()[1])
        assert is_alive(child)
    await until(lambda: not is_alive(child))


async def test_one_that_ignores_the_word_is_killed(tmp_path):
    engine = engine_of(tmp_path, "stubborn", stop_grace_s=0.3)
    await engine.start()
    leader = engine.stats().details["pid"]
    began = time.monotonic()
    await engine.stop()
    assert time.monotonic() - began < 5
    assert not group_members(leader)


async def test_it_dies_with_us(tmp_path):
    code = f"""
import asyncio, os, sys
from pathlib import Path
sys.path[:0] = {sys.path!r}
from tests.engines.process.test_engine import engine_of
async def main():
    engine = engine_of(Path({str(tmp_path)!r}), "child", "stubborn")
    await engine.start()
    print(engine.stats().details["pid"], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        leader = int(parent.stdout.readline())
        members = group_members(leader)
        assert len(members) == 3
        parent.kill()
        await until(lambda: not any(is_alive(pid) for pid in members))


async def test_its_environment_is_what_is_allowed(tmp_path):
    environ = {"PATH": os.environ["PATH"], "HOME": "/h", "SECRET_OF_OURS": "x", "HF_TOKEN": "t", "OMP_NUM_THREADS": "2"}
    engine = engine_of(
        tmp_path, "environment", environ=environ, environment={"GIVEN": "1"}, pass_environment=("HF_TOKEN",)
    )
    async with running(engine):
        await until(lambda: any("PATH" in line for line in engine.last_lines()))
        told = next(line for line in engine.last_lines() if "PATH" in line)
        for name in ("PATH", "HOME", "HF_TOKEN", "OMP_NUM_THREADS", "GIVEN"):
            assert f'"{name}"' in told
        assert "SECRET_OF_OURS" not in told


async def test_a_key_is_made_for_each_start_where_the_command_has_a_place_for_it(tmp_path):
    async with running(engine_of(tmp_path, "key={api_key}")) as engine:
        assert isinstance((await collect(engine))[-1], Done)
        words = Path(f"/proc/{engine.stats().details['pid']}/cmdline").read_text()
        assert "key={api_key}" not in words


async def test_a_key_in_the_server_s_own_variable_is_shown_to_it(tmp_path):
    environ = {"PATH": os.environ["PATH"], "VLLM_API_KEY": "sk-1"}
    command = (sys.executable, str(SERVER), "{port}")
    engine = engine_of(tmp_path, command=command, server="vllm", environ=environ, pass_environment=("VLLM_API_KEY",))
    async with running(engine):
        assert isinstance((await collect(engine))[-1], Done)


async def test_words_are_never_read_by_a_shell(tmp_path):
    word = f"$(touch {tmp_path}/made); touch {tmp_path}/made"
    async with running(engine_of(tmp_path, word)):
        pass
    assert not (tmp_path / "made").exists()


# -- a bad start -------------------------------------------------------------------------------------


async def test_a_death_at_the_start_is_told_with_its_last_words(tmp_path):
    engine = engine_of(tmp_path, "dies")
    with pytest.raises(EngineDied, match=r"code 3 before it was ready; it wrote last:\n.*loading the model\n.*no such"):
        await engine.start()
    assert not engine.health().ready
    assert "\x1b" not in engine.health().reason
    (file,) = (tmp_path / "logs" / "process").glob("*.log")
    assert "no such weights" in file.read_text()
    await engine.stop()


async def test_one_that_is_never_ready_is_ended_in_time(tmp_path):
    engine = engine_of(tmp_path, "never", start_timeout_s=0.5)
    with pytest.raises(EngineFailure, match=r"not ready within 0\.5 s \(/health: 503\); it wrote nothing"):
        await engine.start()
    assert engine.stats().details["pid"] is None


async def test_a_program_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EngineDied, match="no program 'no-such-program' to start"):
        await engine_of(tmp_path, command=("no-such-program", "{port}")).start()


async def test_an_unknown_placeholder_is_named(tmp_path):
    with pytest.raises(Invalid, match=r"did you mean \{port\}"):
        await engine_of(tmp_path, command=(sys.executable, "{prot}")).start()


async def test_garbage_in_the_log_does_no_harm(tmp_path):
    async with running(engine_of(tmp_path, "garbage")) as engine:
        assert isinstance((await collect(engine))[-1], Done)
        assert all(len(line) <= 2000 and line.isprintable() for line in engine.last_lines(100))


async def test_a_port_that_somebody_took_meanwhile_is_given_up_for_another(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports = [taken.getsockname()[1], free.getsockname()[1]]
        async with running(engine_of(tmp_path, pick_port=lambda: ports.pop(0))) as engine:
            assert isinstance((await collect(engine))[-1], Done)
            assert engine.stats().details["starts_total"] == 2


async def test_a_cancelled_start_leaves_nothing(tmp_path):
    engine = engine_of(tmp_path, "never")
    task = asyncio.create_task(engine.start())
    await until(lambda: engine.stats().details["pid"] is not None)
    leader = engine.stats().details["pid"]
    await asyncio.sleep(0.2)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not group_members(leader)


# -- trouble later -----------------------------------------------------------------------------------


async def test_a_crash_fails_open_streams_and_a_new_one_is_started(tmp_path):
    async with running(engine_of(tmp_path)) as engine:
        events = await collect(engine, "crash")
        assert isinstance(events[-1], Failed)
        assert isinstance(events[-1].error, EngineDied)
        await until(lambda: not engine.health().ready or engine.stats().details["starts_total"] == 2)
        await until(lambda: engine.stats().details["starts_total"] == 2 and engine.health().ready)
        assert isinstance((await collect(engine))[-1], Done)
        assert engine.stats().generation_tokens_total >= 4


async def test_while_it_is_down_requests_are_rejected_with_the_reason(tmp_path):
    async with running(engine_of(tmp_path, first_backoff_s=30.0)) as engine:
        await collect(engine, "crash")
        await until(lambda: not engine.health().ready)
        await until(lambda: "starting again" in engine.health().reason)
        with pytest.raises(Rejected, match="something went very wrong") as caught:
            await collect(engine)
        assert caught.value.retry_after_s is not None
        assert engine.health().alive


async def test_one_that_hangs_is_killed_and_started_again(tmp_path):
    async with running(engine_of(tmp_path, hang_s=0.4)) as engine:
        events = await asyncio.wait_for(collect(engine, "stop"), 10)
        assert isinstance(events[-1], Failed)
        await until(lambda: engine.stats().details["starts_total"] == 2 and engine.health().ready)
        assert isinstance((await collect(engine))[-1], Done)


async def test_pauses_double_and_end_in_giving_up(tmp_path):
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    engine = engine_of(tmp_path, f"once={tmp_path}/mark", sleep=sleep, max_restarts=4, first_backoff_s=1.0)
    async with running(engine):
        await collect(engine, "crash")
        await until(lambda: not engine.health().alive, 20)
        assert pauses == [1.0, 2.0, 4.0, 8.0]
        assert "given up after 4 restarts" in engine.health().reason
        assert "cannot start twice" in engine.health().reason
        with pytest.raises(Rejected, match="given up"):
            await collect(engine)
    assert engine.stats().details["starts_total"] == 5


async def test_a_kill_from_outside_is_told_as_a_signal(tmp_path):
    async with running(engine_of(tmp_path, first_backoff_s=30.0)) as engine:
        keeper = engine.stats().details["pid"]
        (server,) = [pid for pid in group_members(keeper) if pid != keeper]
        os.kill(server, signal.SIGKILL)
        await until(lambda: "signal 9" in engine.health().reason)
