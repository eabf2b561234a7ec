from __future__ import annotations

import numpy as np
import pytest

from temper.errors import Invalid
from temper.measure.stats.ab import paired
from temper.measure.stats.estimate import Estimate
from temper.measure.stats.noninferiority import alike, holm, not_worse, superior
from tests.measure.stats.nominal import most_errors


def found(low: float | None, high: float | None, **more) -> Estimate:
    interval = None if low is None or high is None else (low, high)
    effect = None if interval is None else sum(interval) / 2
    return Estimate(effect, interval, 0.95, "a test", 10, reason="too little" if interval is None else "", **more)


@pytest.mark.parametrize(
    ("better", "low", "high", "outcome", "words"),
    [
        ("lower", -0.2, -0.1, "pass", "better by -15 %"),
        ("higher", 0.1, 0.2, "pass", "better by +15 %"),
        ("lower", 0.1, 0.2, "fail", "worse by +15 %"),
        ("higher", -0.2, -0.1, "fail", "worse by -15 %"),
        ("lower", -0.005, 0.01, "inconclusive", "no difference: it is surely below 2 %"),
        ("lower", -0.2, 0.01, "inconclusive", "from -20 % to +1 % all is possible"),
        ("lower", None, None, "inconclusive", "too little"),
    ],
)
def test_superiority(better, low, high, outcome, words):
    verdict = superior("e2e_ms.p50", better, found(low, high), indifference=0.02)
    assert (verdict.verdict, verdict.claim) == (outcome, f"B is {better}")
    assert words in verdict.reason
    assert verdict.evidence.get("no_difference", False) == words.startswith("no difference")


@pytest.mark.parametrize(
    ("better", "low", "high", "outcome"),
    [
        ("lower", -0.3, 0.04, "pass"),
        ("higher", -0.04, 0.3, "pass"),
        ("lower", 0.01, 0.04, "pass"),  # worse, but surely within the margin
        ("lower", 0.01, 0.10, "fail"),
        ("lower", 0.06, 0.10, "fail"),
        ("higher", -0.10, -0.06, "fail"),
        ("lower", -0.01, 0.10, "inconclusive"),
        ("lower", None, None, "inconclusive"),
    ],
)
def test_non_inferiority(better, low, high, outcome):
    assert not_worse("failures", better, found(low, high), margin=0.05).verdict == outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(-0.01, 0.04, "pass"), (-0.2, -0.1, "fail"), (0.1, 0.2, "fail"), (-0.1, 0.1, "inconclusive"),
     (None, None, "inconclusive")],
)  # fmt: skip
def test_equivalence(low, high, outcome):
    assert alike("output_tokens", "higher", found(low, high), margin=0.05).verdict == outcome


def test_an_alarm_must_hold_among_all_that_are_looked_at():
    worse = found(0.10, 0.30, p_higher=0.004)
    assert not_worse("ttft_ms.p50", "lower", worse, margin=0.05, p_alarm=0.02).verdict == "fail"
    assert not_worse("ttft_ms.p50", "lower", worse, margin=0.05, p_alarm=0.03).verdict == "inconclusive"
    assert superior("ttft_ms.p50", "lower", worse, indifference=0.01, p_alarm=0.03).verdict == "inconclusive"
    assert alike("output_tokens", "higher", worse, margin=0.05, p_alarm=0.06).verdict == "inconclusive"


def test_a_margin_of_0_is_refused():
    for judge in (not_worse, alike):
        with pytest.raises(Invalid, match="above 0, not 0"):
            judge("failures", "lower", found(0.0, 0.1), margin=0.0)


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {
        "a": pytest.approx(0.03), "b": pytest.approx(0.06), "c": pytest.approx(0.06),
    }  # fmt: skip
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_of_many_true_nulls_holm_rejects_any_no_oftener_than_alpha_and_a_margin_is_kept():
    rng = np.random.default_rng(1)
    any_rejected = sum(min(holm(dict(enumerate(rng.random(6)))).values()) <= 0.05 for _ in range(2000))
    assert any_rejected <= most_errors(0.05, 2000)
    passed = 0
    for _ in range(600):  # B is worse by exactly the margin: each pass is a false claim
        a, b = np.exp(rng.normal(0, 0.1, (2, 12)))
        passed += not_worse("e2e_ms.p50", "lower", paired(a, b * 1.05), margin=0.05).verdict == "pass"
    assert passed <= most_errors(0.025, 600)
