from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from temper.errors import EngineFailure
from temper.tuner.evaluate import Block, Task
from temper.tuner.ledger import Ledger
from temper.tuner.run import run
from temper.tuner.simulated import InventedEvaluator
from tests.tuner.studies import machine, search, space, study

FAST_AND_WRONG = """
[[effects]]
knob = "precision"
value = "int4"
metric = "output_tokens_per_s"
factor = 1.6
[[effects]]
knob = "precision"
value = "int4"
metric = "quality"
factor = 0.7
"""


def test_a_better_profile_is_found_proven_and_told():
    found = study(trials=18)
    assert found["verdict"] == "pass"
    values = found["winner"]["values"]
    assert values["engine.compute.two_digits"] == "none"
    assert values["engine.batching.max_sequences"] >= 16
    low, high = found["interval"]
    assert 0 < low < found["effect"] < high
    assert found["num_trials"] >= 18
    assert found["evidence"]["self_test"]["verdict"] == "pass"
    assert found["evidence"]["arms"]["control"]["num_trials"] >= 5
    assert 'two_digits = "none"' in found["winner"]["toml"]
    json.dumps(found, allow_nan=False)


def test_a_knob_that_hurts_quality_is_refused_however_fast():
    world = machine(FAST_AND_WRONG).model_copy(
        update={"figures": {"output_tokens_per_s": 100.0, "answer_tokens": 64.0, "quality": 0.8}}
    )
    found = study(world, trials=20, quality=True, confirm_items=600)
    assert found["winner"] is not None
    assert found["winner"]["values"]["engine.compute.precision"] != "int4"
    assert any("below the floor" in trial["reason"] for trial in found["trials"])
    free = study(world, trials=20)
    assert free["winner"]["values"]["engine.compute.precision"] == "int4"  # it was the floor that held it back


def test_shorter_answers_are_no_gain():
    shortening = """
[[effects]]
knob = "precision"
value = "int8"
metric = "answer_tokens"
factor = 0.5
[[effects]]
knob = "precision"
value = "int8"
metric = "output_tokens_per_s"
factor = 2.0
"""
    found = study(machine(shortening), trials=20)
    assert all(
        trial["constraints"]["answer_tokens"] > 0 for trial in found["trials"] if _has(trial, "precision", "int8")
    )
    assert found["winner"]["values"]["engine.compute.precision"] != "int8"


@pytest.mark.parametrize("kind", ["crash", "out_of_memory", "hang", "garbage", "refused"])
def test_trouble_is_a_constraint_with_a_reason_and_never_the_end(kind):
    planted = f"""
[[effects]]
knob = "max_sequences"
value = 32
trouble = "{kind}"
"""
    found = study(machine(planted), trials=14)
    troubled = [trial for trial in found["trials"] if trial["trouble"]]
    assert troubled
    assert {trial["trouble"]["kind"] for trial in troubled} == {kind}
    assert all(trial["constraints"]["trouble"] > 0 and not trial["feasible"] for trial in troubled)
    assert found["winner"]["values"]["engine.batching.max_sequences"] != 32
    assert found["evidence"]["troubles"] == {kind: len(troubled)}


def test_values_that_only_ever_failed_are_left_alone():
    planted = "".join(
        f'[[effects]]\nknob = "max_sequences"\nvalue = {value}\ntrouble = "crash"\n' for value in (16, 32)
    )
    found = study(machine(planted), trials=30)
    proposed = [trial for trial in found["trials"] if trial["arm"] == "tpe" and _has(trial, "max_sequences", 32)]
    assert len(proposed) <= 3


def test_an_incumbent_that_cannot_be_measured_ends_the_study():
    planted = '[[effects]]\nknob = "max_sequences"\nvalue = 2\ntrouble = "hang"\n'
    with pytest.raises(EngineFailure, match="incumbent cannot be measured: hang"):
        study(machine(planted))


def test_a_study_that_its_incumbent_ended_can_be_resumed_when_that_works_again(tmp_path):
    planted = machine('[[effects]]\nknob = "max_sequences"\nvalue = 2\ntrouble = "hang"\n')
    ledger = Ledger(tmp_path / "studies.sqlite")
    ledger.begin("study", {})
    with pytest.raises(EngineFailure):
        study(planted, ledger=ledger)
    assert ledger.find("study").state == "failed"
    ledger.close()
    assert study(machine(), ledger=Ledger(tmp_path / "studies.sqlite")) == study(machine())


def test_limits_that_nothing_keeps_give_the_nearest_point_and_the_limit_that_binds():
    found = study(objective="throughput, ttft p90 < 100 ms, memory < 2 GB", trials=18)
    assert found["verdict"] == "fail"
    assert found["winner"] is None
    nearest = found["evidence"]["nearest"]
    assert nearest["binding"] == "ttft_ms.p90<=100"
    assert nearest["values"]["engine.batching.max_sequences"] == 1  # 300 ms × 0.5^0.5: the least there is
    assert nearest["excess"] == pytest.approx(3 / 2**0.5 - 1, abs=0.5)  # the hour drifts


def test_a_wish_is_judged_by_the_whole_interval():
    assert study(objective="throughput +10 %", trials=18)["verdict"] == "pass"
    wished = study(objective="throughput +300 %", trials=18)
    assert wished["verdict"] == "fail"
    assert wished["winner"] is not None  # better all the same, and proposed


def test_the_cost_of_a_correct_answer_weighs_speed_against_quality():
    world = machine(FAST_AND_WRONG.replace("output_tokens_per_s", "cost_per_correct").replace("1.6", "0.9")).model_copy(
        update={"figures": {"cost_per_correct": 1.0, "quality": 0.8}}
    )
    found = study(world, trials=14, objective="cost per correct answer", quality=True, quality_items=400)
    assert found["metric"] == "cost_per_correct"
    # int4 costs 10 % less a question and is right 30 % less often: dearer by the right answer
    int4 = [trial for trial in found["trials"] if _has(trial, "precision", "int4")]
    assert int4
    assert all(trial["effect"] > 0 for trial in int4)


def test_blocks_are_long_enough_for_the_percentile_that_is_asked_for():
    figures = {"e2e_ms.p99": 900.0, "e2e_ms.p50": 300.0}
    world = machine().model_copy(update={"figures": figures, "block_s": 2.0})
    for objective, requests in (("latency", 40), ("p99", 120)):
        made = search(world, objective=objective, trials=1, block_requests=None)
        asyncio.run(run(made))
        assert made.world.requests == requests


def test_nothing_better_is_no_pass():
    flat = "[figures]\noutput_tokens_per_s = 100.0\n"
    from temper.tuner.simulated import scenario

    verdicts = [study(scenario(flat), trials=6, seed=seed)["verdict"] for seed in range(8)]
    assert verdicts.count("pass") <= 2


class Unplugged(InventedEvaluator):
    """Loses its power before one of its measurements."""

    def __init__(self, *arguments: Any, after: int) -> None:
        super().__init__(*arguments)
        self.left = after
        self.asked: list[str] = []

    async def measure(self, task: Task) -> Block:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked.append(task.key)
        return await super().measure(task)


@pytest.mark.parametrize("after", [0, 3, 14, 31, 52])
def test_a_killed_study_goes_on_to_the_same_end_and_measures_nothing_twice(after, tmp_path):
    whole = study(trials=10)
    ledger = Ledger(tmp_path / "studies.sqlite")
    ledger.begin("study", {})
    first = Unplugged(machine(), space().incumbent, 0, after=after)
    with pytest.raises(KeyboardInterrupt):
        study(trials=10, ledger=ledger, evaluator=first)
    ledger.close()
    ledger = Ledger(tmp_path / "studies.sqlite")
    second = Unplugged(machine(), space().incumbent, 0, after=-1)
    resumed = study(trials=10, ledger=ledger, evaluator=second)
    assert resumed == whole
    assert not set(first.asked) & set(second.asked)
    assert ledger.find("study").state == "done"


def test_a_budget_in_time_leaves_room_to_confirm():
    from dataclasses import replace

    from temper.tuner.settings import Budget

    made = search()
    made.settings = replace(made.settings, budget=Budget(seconds=700.0))
    found = asyncio.run(run(made))
    assert found["evidence"]["finalists"]
    assert found["evidence"]["spent_s"] < 1.5 * 700


def test_losers_are_let_go_early():
    found = study(trials=18)
    beaten = [trial for trial in found["trials"] if trial["state"] == "beaten" and trial["num_pairs"]]
    assert any(trial["num_pairs"] == 1 for trial in beaten)
    complete = [trial for trial in found["trials"] if trial["state"] == "complete" and trial["arm"] != "incumbent"]
    assert all(trial["num_pairs"] == 3 for trial in complete)


def _has(trial: dict[str, Any], knob: str, value: Any) -> bool:
    return any(path.endswith(knob) and found == value for path, found in trial["values"].items())
