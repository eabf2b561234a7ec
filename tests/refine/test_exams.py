"""Exams side by side: gains paired by item, and what was kept of them."""

from __future__ import annotations

import pytest

from temper.refine.exams import exam_table


def sat(scores: str) -> dict:
    items = {f"item-{at}": float(score) for at, score in enumerate(scores)}
    value = sum(items.values()) / len(items)
    return {"sums": {"value": value, "interval": [0, 1], "truncation_rate": 0.0, "items": items}}


def test_gains_are_paired_and_the_kept_share_is_of_the_taught_gain():
    exams = {"base": sat("1000000000" * 4), "teach": sat("1111111110" * 4), "small": sat("0111111100" * 4)}
    found = exam_table(exams, ["sums"], "small")
    rows = {row["model"]: row for row in found["rows"]}
    assert "gain" not in rows["base"]
    assert rows["teach"]["gain"] == pytest.approx(0.8)
    assert rows["small"]["gain"] == pytest.approx(0.6)
    low, high = rows["teach"]["gain_interval"]
    assert 0.6 < low < 0.8 < high < 0.95
    kept = found["kept"]["sums"]
    assert kept["share"] == pytest.approx(0.75)
    assert kept["interval"][0] < 0.75 < kept["interval"][1]


def test_nothing_gained_is_nothing_kept():
    exams = {"base": sat("1100"), "teach": sat("1100"), "small": sat("1100")}
    assert exam_table(exams, ["sums"], "small")["kept"] == {"sums": None}


def test_a_recipe_without_a_smaller_model_keeps_nothing():
    assert exam_table({"base": sat("10"), "teach": sat("11")}, ["sums"], "teach")["kept"] == {}
