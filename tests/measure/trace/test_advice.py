from __future__ import annotations

from typing import Any

import pytest

from temper.measure.trace import stages
from temper.measure.trace.advice import advise


def run(
    shares: dict[str, float] | None = None,
    phases: list[tuple[str, float | None, float | None]] | None = None,
    times: dict[str, float | None] | None = None,
    others_cores: float | None = None,
) -> dict[str, Any]:
    return {
        "stages": [{"stage": name, "share": share} for name, share in (shares or {}).items()],
        "phases": [
            {"phase": name, "bandwidth_share": memory, "compute_share": compute}
            for name, memory, compute in phases or []
        ],
        "others_cores": others_cores,
        "request_ms": {"queue": None, "total": None, **(times or {})},
    }


def said(found: dict[str, Any]) -> list[str]:
    return [f"{one['finding']}: {one['advice']}" for one in advise(found)]


def test_decode_at_the_limit_of_memory():
    assert said(run(phases=[("decode", 0.81, 0.2)])) == [
        "decode is at 81% of memory bandwidth: only smaller weights or speculation can help"
    ]


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (("prefill", 0.1, 0.75), "prefill is at 75% of peak arithmetic: only fewer tokens"),
        (("decode", 0.65, 0.9), "decode is at 90% of peak arithmetic: only fewer tokens"),
        (("decode", 0.3, 0.1), "the machine has room: more sequences in a step"),
        (("mixed", 0.1, 0.3), "a step that mixes prompts and decoding is at 10% of memory bandwidth and 30%"),
    ],
)
def test_the_nearer_limit_is_named(phase, words):
    (line,) = said(run(phases=[phase]))
    assert words in line


def test_limits_that_are_not_known_say_nothing():
    assert said(run(phases=[("decode", None, None)])) == []


def test_a_machine_that_others_use_has_no_room_to_speak_of():
    found = run(phases=[("decode", 0.3, 0.1), ("prefill", 0.1, 0.7)], others_cores=1.5)
    assert [one["about"] for one in advise(found)] == ["machine", "prefill"]
    assert said(run(others_cores=0.1)) == []


@pytest.mark.parametrize(
    ("stage", "below", "above", "about"),
    [
        (stages.SAMPLING, 0.09, 0.11, "sampling"),
        (stages.ATTENTION_DECODE, 0.24, 0.26, "attention"),
        (stages.TOKENIZING, 0.09, 0.11, "tokenizer"),
        (stages.HTTP, 0.09, 0.11, "http"),
        (stages.PUBLISHING, 0.09, 0.11, "engine"),
    ],
)
def test_what_is_large_stands_out(stage, below, above, about):
    assert advise(run({stage: below})) == []
    assert [one["about"] for one in advise(run({stage: above}))] == [about]


def test_waiting_comes_first():
    found = advise(run({stages.SAMPLING: 0.5}, [("decode", 0.9, 0.1)], {"queue": 30.0, "total": 100.0}))
    assert [one["about"] for one in found] == ["queue", "decode", "sampling"]
    assert found[0]["finding"] == "requests wait 30 of their 100 ms"
