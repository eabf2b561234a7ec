from __future__ import annotations

import math

import pytest

from temper.errors import Invalid
from temper.measure.workload.schema import Targets
from temper.tuner.objective import METRICS, WORDS, Limit, metric, of_workload, parse


@pytest.mark.parametrize(
    ("words", "name", "wanted"),
    [
        ("p99 -20 %", "e2e_ms.p99", -0.2),
        ("P99 −20%", "e2e_ms.p99", -0.2),
        ("ttft p90 -15 %", "ttft_ms.p90", -0.15),
        ("throughput +30%", "output_tokens_per_s", 0.3),
        ("throughput", "output_tokens_per_s", None),
        ("goodput", "goodput_per_s", None),
        ("memory", "rss_bytes", None),
        ("cost per correct answer", "cost_per_correct", None),
        ("latency", "e2e_ms.p50", None),
        ("ttft_ms.p95", "ttft_ms.p95", None),
    ],
)
def test_objectives_as_people_say_them(words, name, wanted):
    found = parse(words).objective
    assert (found.metric, found.wanted) == (name, wanted)
    assert found.better == METRICS[name][0]


def test_limits_stand_beside_the_objective():
    goal = parse("throughput, ttft p90 < 300 ms; memory < 2 GB and goodput >= 1.5 /s")
    assert [limit.name for limit in goal.limits] == ["ttft_ms.p90<=300", "rss_bytes<=2e+09", "goodput_per_s>=1.5"]
    alone = parse("ttft p90 < 0.3 s")
    assert alone.objective.metric == "output_tokens_per_s"
    assert alone.limits[0].value == 300


@pytest.mark.parametrize(
    "words", ["speed of light", "throughput, p99", "throughput -10 %", "p99 +10 %", "memory < 2 apples", "p99 -100 %"]
)
def test_what_cannot_be_meant_is_refused(words):
    with pytest.raises(Invalid):
        parse(words)


def test_every_word_names_a_metric():
    assert {metric(word) for word in WORDS} <= set(METRICS)


def test_gains_point_up_whichever_way_the_metric_does():
    slower, faster = parse("latency").objective, parse("throughput").objective
    assert slower.gain(100, 80) == pytest.approx(math.log(1.25))
    assert slower.effect(slower.gain(100, 80)) == pytest.approx(-0.2)
    assert faster.effect(faster.gain(100, 80)) == pytest.approx(-0.2)


def test_a_workload_s_slo_is_limits():
    limits = of_workload(Targets(ttft_ms=200, tpot_ms=20, percentile=90))
    assert [limit.name for limit in limits] == ["ttft_ms.p90<=200", "tpot_ms.p90<=20"]
    assert limits[0].share == pytest.approx(0.1)
    assert Limit("rss_bytes", "<=", 1e9).share is None
