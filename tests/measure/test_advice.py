from __future__ import annotations

from dataclasses import replace

import pytest

from temper.errors import Invalid
from temper.measure.advice import Situation, advise

NOW = Situation(
    parameters=7e9, weight_bytes=14e9, tokens_per_s=500, price_per_hour=2.0, tokens_per_month=1e9, quality=0.8,
    quality_floor=0.7, training_tokens=2e9, data_cost=500.0,
)  # fmt: skip


def route(found, name):
    return next(each for each in found["routes"] if each["route"] == name)


def test_the_arithmetic_by_hand():
    found = advise(NOW)
    stay, quantized, tuned = (route(found, name) for name in ("stay", "quantize", "fine-tune"))
    assert stay["monthly"] == pytest.approx(1e9 / 500 / 3600 * 2.0)
    assert quantized["weight_bytes"] == pytest.approx(7e9 * 4.5 / 8)
    assert quantized["monthly"] == pytest.approx(stay["monthly"] * 7e9 * 4.5 / 8 / 14e9)
    assert tuned["upfront"] == pytest.approx(6 * 1.75e9 * 2e9 / 50e12 / 3600 * 1.0 + 500)
    assert tuned["total"] == pytest.approx(tuned["upfront"] + 12 * tuned["monthly"])
    assert tuned["break_even_months"] == pytest.approx(tuned["upfront"] / (stay["monthly"] - tuned["monthly"]))
    assert any("6 × 1.75e+09 × 2e+09 tokens" in line for line in tuned["arithmetic"])


def test_long_horizons_pay_for_training_and_short_ones_do_not():
    assert advise(replace(NOW, horizon_months=1))["advice"] == "quantize"
    long = advise(NOW)
    assert long["advice"] == "hybrid"
    assert "quantize now" in long["reason"]
    precise = replace(NOW, quality_floor=0.735, horizon_months=24)  # 4 bits on top of a small model lose too much
    assert advise(precise)["advice"] in ("fine-tune", "quantize")
    assert "below the floor" in route(advise(precise), "hybrid")["against"][0]


def test_the_poor_do_what_their_budget_holds():
    poor = advise(replace(NOW, data_cost=0.0, budget=80.0, memory_bytes=2e9, quality_floor=0.6))
    assert poor["advice"] == "hybrid"
    assert any("budget" in reason for reason in route(poor, "fine-tune")["against"])
    assert any("do not fit" in reason for reason in route(poor, "quantize")["against"])


def test_no_route_names_the_nearest():
    found = advise(replace(NOW, quality_floor=0.99))
    assert found["advice"] is None
    assert "nearest is" in found["reason"]
    unknown = advise(replace(NOW, quality=None))
    assert "measure it with temper eval" in route(unknown, "quantize")["against"][0]


def test_what_is_measured_is_not_assumed():
    measured = replace(NOW, quantized_quality=0.5, student_quality=0.75, student_parameters=1.5e9)
    found = advise(measured)
    assert found["assumed"] == ["tokens/s scale with 1 ÷ bytes of weights: measure with temper bench"]
    assert "quality 0.500 is below" in route(found, "quantize")["against"][0]
    with pytest.raises(Invalid, match="'tokens_per_s' must be above 0"):
        advise(replace(NOW, tokens_per_s=0.0))
