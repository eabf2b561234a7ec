"""Verdicts on outcomes made by hand, so that what is planted is known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from temper.errors import Invalid, NotFound
from temper.measure.ab import Block, Design, Measured
from temper.measure.ab_page import page
from temper.measure.ab_verdict import GUARDRAILS, direction, document, estimate, judge, metrics, unit_figures
from temper.measure.loadgen import Outcome
from temper.measure.stats.verdict import Verdict
from temper.measure.workload.schema import Workload
from tests.measure.stats.nominal import most_errors


def outcome(rng, drift: float, *, speed: float = 1.0, length: int = 10, fails: bool = False) -> Outcome:
    first = 0.1 * math.exp(drift + rng.normal(0, 0.1)) * speed
    gap = 0.02 * math.exp(drift + rng.normal(0, 0.1)) * speed
    arrivals = [first + gap * i for i in range(length)]
    made = Outcome("r", 0.0, 0.0, end_s=arrivals[-1], arrivals_s=arrivals, answer_s=first, output_tokens=length)
    if fails:
        made.failure, made.message = "engine_failure", "it broke"
    return made


def measured(
    seed: int = 0, *, units: int = 12, requests: int = 40, restart: bool = False, speed: float = 1.0,
    length: int = 10, failing: float = 0.0,
) -> Measured:  # fmt: skip
    """A and B on a machine that drifts; B as told."""
    rng = np.random.default_rng(seed)
    design = Design(units, restart=restart, requests=requests)
    found = Measured(design, Workload(), [], {"a": [], "b": ["a note <b>"]}, {"a": "m", "b": "m"})
    for number in range(units * design.blocks_per_unit):
        drift = rng.normal(0, 0.3)  # what both arms of a block feel
        block = Block(number // design.blocks_per_unit, number, a_first=number % 2 == 0)
        block.a = [outcome(rng, drift) for _ in range(requests)]
        block.b = [
            outcome(rng, drift, speed=speed, length=length, fails=bool(rng.random() < failing)) for _ in range(requests)
        ]
        found.blocks.append(block)
    return found


@pytest.mark.parametrize("restart", [False, True])
def test_20_percent_slower_fails_and_faster_passes(restart):
    slower = judge(measured(speed=1.2, restart=restart))
    assert (slower.verdict, slower.metric) == ("fail", "e2e_ms.p50")
    assert slower.interval[0] < 0.2 < slower.interval[1]
    assert slower.num_units == 12
    faster = judge(measured(1, speed=1 / 1.2, restart=restart))
    assert faster.verdict == "pass"
    assert {guard.metric: guard.verdict for guard in faster.guardrails} == dict.fromkeys(GUARDRAILS, "pass")


def test_faster_by_saying_less_is_caught():
    found = judge(measured(length=7))
    assert found.effect < -0.1
    assert found.verdict == "fail"
    assert "output_tokens fails: B differs by -30 %" in found.reason


def test_faster_but_failing_is_caught():
    found = judge(measured(speed=0.8, failing=0.05))
    assert found.verdict == "fail"
    assert found.reason.startswith("failures fails")
    at_one_percent = judge(measured(2, speed=0.8, failing=0.01))
    assert at_one_percent.verdict != "pass"


def test_quality_is_a_guardrail_like_the_others():
    found = measured(speed=0.8)
    found.quality.append(Verdict("fail", "s.accuracy", "higher", "c", -0.1, (-0.2, -0.05), 0.95, "m", "it errs more"))
    verdict = judge(found)
    assert (verdict.verdict, verdict.reason) == ("fail", "s.accuracy fails: it errs more")


def test_a_against_a_is_told_apart_no_oftener_than_alpha_guardrails_included():
    verdicts = [judge(measured(seed, units=8, requests=16)) for seed in range(150)]
    assert sum(verdict.verdict != "inconclusive" for verdict in verdicts) <= most_errors(0.05, 150)
    sure = judge(measured(3, units=40, requests=60))
    assert sure.verdict == "inconclusive"
    assert sure.evidence["no_difference"]
    assert "no difference" in sure.reason


def test_a_percentile_that_no_block_carries_is_bootstrapped_over_all():
    found = measured(speed=1.3, requests=40)
    assert estimate(found, "e2e_ms.p90").method == "paired t on logs, CUPED"
    tail = estimate(found, "e2e_ms.p99")
    assert tail.method.startswith("stationary block bootstrap of P99")
    assert tail.num_units == 12
    assert estimate(measured(requests=10), "e2e_ms.p99").reason == "P99 needs 299 values, not 120"
    for metric in ("ttft_ms.p99", "ttfat_ms.p99", "tpot_ms.p99", "itl_ms.p99"):
        assert estimate(found, metric).effect == pytest.approx(0.3, abs=0.15)


def test_a_unit_of_several_blocks_is_their_geometric_mean():
    found = measured(units=2, restart=True)
    (first, _), blocks = unit_figures(found, "e2e_ms.p50"), found.blocks
    single = [unit_figures(Measured(Design(1), Workload(), [b], {}, {}), "e2e_ms.p50") for b in blocks[:1]]
    assert len(unit_figures(found, "e2e_ms.p50")) == 2
    assert first[0] != single[0][0][0]


def test_units_without_a_figure_are_counted_and_a_dead_arm_is_a_failure():
    found = measured(units=6, requests=10)
    for one in found.blocks[0].b:
        one.failure, one.message = "engine_died", "gone"
    told = estimate(found, "output_tokens")
    assert told.evidence["num_units_without_figure"] == 1
    assert told.num_units == 5
    for block in found.blocks:
        for one in block.b:
            one.failure, one.message = "engine_died", "gone"
    dead = judge(found)
    assert (dead.verdict, dead.effect) == ("fail", None)
    assert dead.reason.startswith("failures fails")


def test_throughput_is_better_high_and_nonsense_is_refused():
    assert judge(measured(speed=0.8), target="output_tokens_per_s").verdict in ("pass", "inconclusive")
    assert direction("output_tokens_per_s") == "higher"
    assert direction("ttft_ms.p50") == direction("failures") == "lower"
    assert all(direction(name) in ("lower", "higher") for name in metrics())
    with pytest.raises(NotFound, match=r"did you mean 'ttft_ms\.p50'"):
        direction("ttft_ms.p5")
    with pytest.raises(Invalid, match="neither better high nor low"):
        judge(measured(units=3), target="output_tokens")
    with pytest.raises(Invalid, match=r"between 0\.5 and 1, not 1"):
        judge(measured(units=3), confidence=1.0)


def test_the_document_says_everything_and_the_page_shows_it():
    found = measured(speed=1.2, failing=0.01)
    told = document(found, judge(found), {"a": "default", "b": "fast & <new>"})
    assert {"verdict", "metric", "effect", "interval", "guardrails", "arms", "design", "units"} <= set(told)
    assert told["arms"]["b"]["failures"]["engine_failure"] > 0
    assert told["arms"]["a"]["e2e_ms"]["p50"] < told["arms"]["b"]["e2e_ms"]["p50"]
    assert told["design"] == {
        "unit": "pair of blocks in time", "num_units": 12, "blocks_per_unit": 1, "requests_per_block": 40,
    }  # fmt: skip
    assert len(told["units"]["e2e_ms.p50"]) == 12
    drawn = page(told)
    assert "fast &amp; &lt;new&gt;" in drawn
    assert "<new>" not in drawn
    assert "a note &lt;b&gt;" in drawn
    assert drawn.count("<svg") >= 5
    assert "Distribution of end-to-end latency" in drawn
