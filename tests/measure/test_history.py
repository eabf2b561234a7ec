from __future__ import annotations

import sqlite3

import pytest

from temper.errors import Invalid
from temper.measure.history import History, Session

MACHINE = {
    "cpu": "X",
    "arch": "x86_64",
    "cores": 2,
    "usable_cores": 2.0,
    "isa": ["avx2"],
    "memory_limit_bytes": 8 << 30,
}
WORKLOAD = {"name": "w", "seed": 1, "requests": 8, "arrivals": {"kind": "closed", "concurrency": 1}, "slo": {}}


def session(subject: str = "default", version: str | None = "v1", **changes) -> Session:
    runs = [{"engine": "native", "concurrency": 1, "e2e_ms": {"p50": 10.0}, "distribution": {"e2e_ms": [1.0] * 101}}]
    given = {"workload": WORKLOAD, "machine": MACHINE, "runs": runs, "temper": "0.1.0"} | changes
    return Session(subject, version, **given)


def test_what_is_recorded_is_found_again_without_its_drawings(tmp_path):
    path = tmp_path / "new" / "benchmarks.db"
    with History(path) as history:
        assert history.record(session()) == 1
        assert history.record(session("other", "v2")) == 2
    with History(path) as history:
        (found,) = history.like(session())
        assert (found.id, found.subject, found.version, found.machine) == (1, "default", "v1", MACHINE)
        assert found.runs == [{"engine": "native", "concurrency": 1, "e2e_ms": {"p50": 10.0}}]
        assert [one.id for one in history.all()] == [2, 1]


def test_alike_is_the_same_subject_or_version_under_the_same_load(tmp_path):
    with History(tmp_path / "h.db") as history:
        history.record(session("renamed", "v1"))
        history.record(session("default", "v0"))
        history.record(session("other", "v3"))
        history.record(session(workload={**WORKLOAD, "requests": 9}))
        assert [one.id for one in history.like(session())] == [2, 1]
        other_seed = {**WORKLOAD, "seed": 7, "name": "x", "arrivals": {"kind": "closed", "concurrency": 8}}
        assert len(history.like(session(workload=other_seed))) == 2
        assert history.like(session(workload={**WORKLOAD, "arrivals": {"kind": "recorded", "speed": 2.0}})) == []


def test_machines_are_told_apart_by_what_makes_them_fast():
    assert session().machine_hash == session(machine={**MACHINE, "python": "3.12", "system": "Linux 9"}).machine_hash
    assert session().machine_hash != session(machine={**MACHINE, "usable_cores": 4.0}).machine_hash


def test_a_history_that_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "h.db"
    History(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Invalid, match="has schema 99, this Temper reads up to 1"):
        History(path)
    path.write_text("no database " * 200)
    with pytest.raises(Invalid, match="is no history of benchmarks"):
        History(path)
