from __future__ import annotations

import random

import pytest

from temper.errors import Invalid, NotFound
from temper.measure.quality.compare import compare
from temper.measure.quality.evaluate import evaluate
from temper.measure.quality.intervals import wilson
from temper.measure.quality.kinds import find
from temper.measure.quality.report import Figure, Report, Result
from temper.measure.quality.suite import Metric
from tests.measure.quality.answering import AnsweringEngine, asked

RATE = Metric("correct", "share right", kind="share")
LENGTH = Metric("nll", "nats a token", better="lower", worst=None, bounds=None, margin=0.05)


def report(metric: Metric, values: list[float], seed: int = 1) -> Report:
    value = sum(values) / len(values)
    results = tuple(Result(f"i{i}", {metric.name: v}, finish_reason="stop") for i, v in enumerate(values))
    interval = wilson(round(sum(values)), len(values), 0.95) if metric.kind == "share" else None
    figure = Figure(metric, value, interval, len(values))
    return Report("s", "m", "e", seed, len(values), {metric.name: figure}, figure, results, 0.0)


def test_a_planted_loss_fails_and_a_planted_gain_passes():
    rng = random.Random(4)
    a = [float(rng.random() < 0.8) for _ in range(400)]
    worse = [0.0 if value and rng.random() < 0.15 else value for value in a]
    lost = compare(report(RATE, a), report(RATE, worse))
    assert lost.verdict == "fail"
    assert lost.effect is not None
    assert lost.effect < -0.05
    assert compare(report(RATE, worse), report(RATE, a), margin=0).verdict == "pass"


def test_a_loss_of_just_the_margin_is_rarely_passed():
    """At the edge of the hypothesis a pass is wrong: at most 2.5 % of the time, 22 of 400 with its 99.9 % bound."""
    rng, passed = random.Random(11), 0
    for _ in range(400):
        a = [float(rng.random() < 0.7) for _ in range(300)]
        draws = [rng.random() for _ in a]
        b = [1 - x if (u < 0.09 if x else u < 0.143) else x for x, u in zip(a, draws, strict=True)]  # −0.063 + 0.043
        passed += compare(report(RATE, a), report(RATE, b)).verdict == "pass"
    assert passed <= 22


def test_few_items_are_inconclusive_even_when_all_agree():
    verdict = compare(report(RATE, [1.0] * 20), report(RATE, [1.0] * 20))
    assert verdict.verdict == "inconclusive"
    assert compare(report(RATE, [1.0] * 400), report(RATE, [1.0] * 400)).verdict == "pass"


def test_lower_is_better_turns_the_margin_round():
    rng = random.Random(9)
    a = [rng.gauss(3, 0.4) for _ in range(60)]
    same = [value + rng.gauss(0, 0.02) for value in a]
    worse = [value + 0.2 + rng.gauss(0, 0.02) for value in a]
    assert compare(report(LENGTH, a), report(LENGTH, same)).verdict == "pass"
    verdict = compare(report(LENGTH, a), report(LENGTH, worse))
    assert (verdict.verdict, verdict.better) == ("fail", "lower")
    assert verdict.effect == pytest.approx(0.2, abs=0.02)


def test_only_the_same_items_are_compared():
    with pytest.raises(Invalid, match="same items"):
        compare(report(RATE, [1.0]), report(RATE, [1.0], seed=2))
    with pytest.raises(NotFound, match="it has correct"):
        compare(report(RATE, [1.0]), report(RATE, [1.0]), metric="other")
    with pytest.raises(Invalid, match="margin"):
        compare(report(RATE, [1.0]), report(RATE, [1.0]), margin=-1)


async def test_two_engines_are_judged_on_the_same_questions():
    right = {item.request.messages[-1].content: str(item.reference.answer) for item in find("units").items(7, 60)}
    good = await evaluate(AnsweringEngine(lambda request: right[asked(request)]), find("units"), 7, 60)
    bad = await evaluate(AnsweringEngine(lambda request: "Answer: 0.123"), find("units"), 7, 60)
    verdict = compare(good, bad)
    assert (verdict.verdict, verdict.effect, verdict.num_units) == ("fail", -1.0, 60)
    assert verdict.evidence["only_a"] == 60
    assert verdict.document()["metric"] == "units.correct"
