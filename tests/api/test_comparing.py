"""`temper.ab` from Python."""

from __future__ import annotations

import pytest

import temper
from temper.errors import Invalid, NotFound
from temper.measure.stats.verdict import Verdict
from temper.profile.schema import FakeEngine, Profile

FAST = {"units": 3, "requests": 3, "load": {"input_tokens": 4, "output_tokens": 4, "warmup": 1}}


def profile(**fields) -> Profile:
    return Profile(engine=FakeEngine(script="words", **fields))


def test_profiles_a_suite_and_a_judge_of_one_s_own():
    asked = []

    async def judge(a, b) -> Verdict:
        asked.append((a.name, b.name))
        return Verdict(
            "fail", "mine.politeness", "higher", "B is as polite", -0.5, (-0.6, -0.4), 0.95, "m", "B is rude"
        )

    found = temper.ab(
        profile(ttft_ms=1), profile(ttft_ms=1), suites={"arithmetic": 5}, quality=[judge],
        guardrails={"ttft_ms.p50": None}, **FAST,
    )  # fmt: skip
    assert asked == [("fake", "fake")]
    metrics = [guard["metric"] for guard in found["guardrails"]]
    assert metrics[:2] == ["failures", "output_tokens"]
    assert metrics[2].startswith("arithmetic.")
    assert (found["verdict"], found["reason"]) == ("fail", "mine.politeness fails: B is rude")
    assert found["differences"] == []
    assert found["design"]["unit"] == "pair of blocks in time"
    assert found["workload"]["ignore_eos"] is False


def test_restarts_follow_from_the_difference_unless_told():
    found = temper.ab(profile(), profile(itl_ms=1), restart=False, metric="output_tokens_per_s", **FAST)
    assert found["design"]["unit"] == "pair of blocks in time"
    assert (found["metric"], found["better"]) == ("output_tokens_per_s", "higher")
    assert found["differences"] == [{"field": "engine.itl_ms", "a": 0.0, "b": 1.0}]


def test_what_cannot_be_compared_is_said_before_anything_is_started():
    with pytest.raises(NotFound, match="no metric 'speed'"):
        temper.ab(profile(), profile(), metric="speed")
    with pytest.raises(NotFound, match="neither a profile"):
        temper.ab("nothing-of-this-name", profile())
    with pytest.raises(Invalid, match="one load, not 2"):
        temper.ab(profile(), profile(), load={"concurrency": (1, 2)})
