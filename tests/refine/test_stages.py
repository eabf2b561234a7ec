"""Stages are done once, go on where they stopped, and are refused where they were made otherwise."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from temper.errors import Invalid, MalformedFile
from temper.refine.stages import MANIFEST, Stage, run_stages


def stages(ran: list[str], **settings):
    def work(name: str):
        def run(folder: Path, results, tell):
            ran.append(name)
            (folder / "made").write_text(name)
            return {"sum": 1 + sum(result["sum"] for result in results.values())}

        return run

    return [
        Stage("one", work("one"), settings),
        Stage("two", work("two"), {}, ("one",)),
        Stage("three", work("three"), {}, ("one", "two")),
    ]


def test_each_stage_is_done_once_with_what_it_needs(tmp_path: Path):
    ran: list[str] = []
    found = run_stages(stages(ran), tmp_path)
    again = run_stages(stages(ran), tmp_path)
    assert ran == ["one", "two", "three"]
    assert found.results == again.results == {"one": {"sum": 1}, "two": {"sum": 2}, "three": {"sum": 4}}
    assert found.left == again.left == ()
    manifest = json.loads((tmp_path / "three" / MANIFEST).read_text())
    assert (manifest["schema"], manifest["needs"]) == ("temper.stage/1", ["one", "two"])


def test_some_stages_alone(tmp_path: Path):
    ran: list[str] = []
    found = run_stages(stages(ran), tmp_path, only=["one"])
    assert (ran, found.left, found.reason) == (["one"], ("two", "three"), "not asked for")
    with pytest.raises(Invalid, match="'three' builds on two, which is not done"):
        run_stages(stages(ran), tmp_path, only=["three"])
    with pytest.raises(Invalid, match="there is no stage 'four'"):
        run_stages(stages(ran), tmp_path, only=["four"])


def test_other_settings_are_refused_by_name_and_what_builds_on_them_too(tmp_path: Path):
    ran: list[str] = []
    run_stages(stages(ran, steps=3), tmp_path)
    with pytest.raises(Invalid, match=r"stage 'one' in .* was made otherwise: steps differ"):
        run_stages(stages(ran, steps=4), tmp_path)
    (tmp_path / "one" / MANIFEST).unlink()
    with pytest.raises(Invalid, match=r"stage 'two' in .* a stage that it builds on is another one"):
        run_stages(stages(ran, steps=4), tmp_path)


def test_a_stage_that_broke_goes_on_and_its_time_adds_up(tmp_path: Path):
    calls = []

    def broken(folder: Path, results, tell):
        calls.append(1)
        time.sleep(0.05)
        if len(calls) == 1:
            raise OSError("the disk is full")
        return {}

    with pytest.raises(OSError, match="full"):
        run_stages([Stage("one", broken)], tmp_path)
    assert not (tmp_path / "one" / MANIFEST).exists()
    assert run_stages([Stage("one", broken)], tmp_path).seconds["one"] >= 0.1


def test_the_budget_ends_within_a_stage_that_goes_on_and_before_any_other(tmp_path: Path):
    seen = []

    def long(folder: Path, results, tell):
        for at in range(len(seen), 100):
            seen.append(at)
            tell("working", at, 100)
            time.sleep(0.001)
        return {}

    plan = [Stage("long", long, resumable=True), Stage("next", lambda folder, results, tell: {})]
    found = run_stages(plan, tmp_path, budget_s=0.02)
    assert found.left == ("long", "next")
    assert "goes on from there" in found.reason
    assert len(seen) < 100
    assert run_stages(plan, tmp_path).left == ()
    assert seen == list(range(100))
    other = tmp_path / "other"
    assert run_stages(plan, other, budget_s=0).reason == "the budget is spent"


def test_a_damaged_manifest_is_named(tmp_path: Path):
    run_stages(stages([]), tmp_path)
    (tmp_path / "two" / MANIFEST).write_text("{")
    with pytest.raises(MalformedFile, match=r"two/stage.json"):
        run_stages(stages([]), tmp_path)
