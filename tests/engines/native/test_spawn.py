from __future__ import annotations

import os
from pathlib import Path

import pytest

from temper.engines import NATIVE, ahead
from temper.engines.native import spawn
from tests.waiting import until

ROOT = Path(__file__).parents[3]
FAKE = "tests.engines.native.fakes:open_fake"


@pytest.fixture(autouse=True)
def _no_spare_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    spawn.end_spare()
    yield
    spawn.end_spare()


def spare() -> spawn.WorkerProcess:
    assert spawn._spare is not None
    return spawn._spare


async def killed(*processes: spawn.WorkerProcess) -> None:
    for one in processes:
        one.kill()
        await one.end(1.0)


async def test_a_spare_is_taken_once():
    spawn.prepare_spare(FAKE)
    spawn.prepare_spare(FAKE)
    waiting = spare()
    taken, another = spawn.worker(FAKE), spawn.worker(FAKE)
    try:
        assert taken is waiting
        assert another.pid != taken.pid
    finally:
        await killed(taken, another)


async def test_a_spare_that_imported_something_else_or_died_is_not_taken():
    spawn.prepare_spare(NATIVE)
    other = spawn.worker(FAKE)
    assert other is not spare()
    spare().kill()
    await until(lambda: not spare().is_alive)
    fresh = spawn.worker(NATIVE)
    try:
        assert fresh.is_alive
    finally:
        await killed(other, fresh)


async def test_hanging_up_ends_a_spare_that_was_told_nothing():
    spawn.prepare_spare(FAKE)
    taken = spawn.worker(FAKE)
    assert await taken.end(10.0) == 0


async def test_what_began_ahead_ends_where_nobody_took_it():
    ahead.prepare()
    waiting = spare()
    ahead.give_up()
    await until(lambda: not waiting.is_alive)
    ahead.give_up()  # nothing is left to end
