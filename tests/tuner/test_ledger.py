from __future__ import annotations

import sqlite3

import pytest

from temper.errors import NotFound, Rejected
from temper.tuner.evaluate import Block, Task, Trouble
from temper.tuner.ledger import Ledger
from tests.tuner.studies import space

TASK = Task("trial-1/0/candidate", space().incumbent, "candidate", 7)
BLOCK = Block(
    figures={"output_tokens_per_s": 12.5},
    num_requests=4,
    misses={"ttft_ms.p90<=300": (1, 4)},
    trouble=Trouble("crash", "gone"),
    scores={"0": 1.0},
    details={"suite": "words"},
)


@pytest.fixture
def ledger(tmp_path):
    found = Ledger(tmp_path / "home" / "studies.sqlite")
    yield found
    found.close()


def test_a_measurement_comes_back_as_it_was_and_only_once(ledger, tmp_path):
    ledger.begin("a", {"seed": 1})
    ledger.record("a", TASK, BLOCK)
    again = Ledger(tmp_path / "home" / "studies.sqlite", create=False)
    assert again.measurements("a") == {TASK.key: BLOCK}
    assert again.measurements("b") == {}
    with pytest.raises(sqlite3.IntegrityError):
        ledger.record("a", TASK, BLOCK)


def test_studies_are_found_by_id_beginning_or_as_the_last(ledger):
    ledger.begin("20260101-aaaa", {})
    ledger.begin("20260102-bbbb", {"x": 1})
    assert ledger.find("last").id == "20260102-bbbb"
    assert ledger.find("20260101").id == "20260101-aaaa"
    with pytest.raises(NotFound, match="several"):
        ledger.find("2026")
    with pytest.raises(NotFound, match="no study"):
        ledger.find("x")
    ledger.write("20260101-aaaa", {"verdict": "pass"}, "done")
    found = ledger.find("20260101-aaaa")
    assert (found.state, found.document) == ("done", {"verdict": "pass"})


def test_one_process_runs_a_study_at_a_time(ledger, tmp_path):
    ledger.begin("a", {})
    other = Ledger(tmp_path / "home" / "studies.sqlite")
    with ledger.running("a"):
        with pytest.raises(Rejected, match="another process"), other.running("a"):
            pass
        with other.running("b"):
            pass
    with other.running("a"):
        pass


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(NotFound, match="no studies yet"):
        Ledger(tmp_path / "studies.sqlite", create=False)
