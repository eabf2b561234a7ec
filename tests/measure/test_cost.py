from __future__ import annotations

import os
import subprocess
import sys

import pytest

from temper.measure import cost as costs
from temper.measure.cost import Meter, Spent, cost, cpu_seconds


def test_cpu_seconds_are_those_of_the_process_and_its_children():
    with Meter((os.getpid(),)) as meter:
        subprocess.run([sys.executable, "-c", "x = 0\nfor i in range(3_000_000): x += i"], check=True)
    assert meter.spent.cpu_s is not None
    assert 0.02 < meter.spent.cpu_s < 60
    assert meter.spent.wall_s > 0
    assert (meter.spent.joules is None) == (meter.spent.joules_reason is not None)


def test_what_is_elsewhere_is_not_known():
    with Meter(()) as meter:
        pass
    assert (meter.spent.cpu_s, meter.spent.joules_reason) == (None, "the server is on another machine")
    assert cpu_seconds((2**30,)) is None


def test_money_is_hours_times_price():
    found = cost(Spent(1800.0, 900.0, 36000.0), tokens=500_000, answers=100, correct=50, price_per_hour=2.0)
    assert found["money"] == pytest.approx(1.0)
    assert found["money_per_million_tokens"] == pytest.approx(2.0)
    assert found["money_per_correct_answer"] == pytest.approx(0.02)
    assert found["cpu_s_per_million_tokens"] == pytest.approx(1800.0)
    assert found["joules_per_token"] == pytest.approx(0.072)


def test_what_cannot_be_told_is_none():
    found = cost(Spent(1.0, None, None, "no counters"), tokens=0, answers=3, correct=0, price_per_hour=2.0)
    assert found["money_per_million_tokens"] is None
    assert found["money_per_correct_answer"] is None  # no right answer at any price
    assert found["joules_reason"] == "no counters"


def test_counters_of_rapl_start_again(tmp_path, monkeypatch):
    for name, energy in (("intel-rapl:0", 900), ("intel-rapl:0:0", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(str(energy))
        (tmp_path / name / "max_energy_range_uj").write_text("1000")
    monkeypatch.setattr(costs, "RAPL", tmp_path)
    with Meter((os.getpid(),)) as meter:
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("150")
    assert meter.spent.joules == pytest.approx(250e-6)
    monkeypatch.setattr(costs, "RAPL", tmp_path / "none")
    assert "no RAPL counters" in str(costs.energy())
