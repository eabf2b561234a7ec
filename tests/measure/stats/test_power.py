from __future__ import annotations

import pytest

from temper.errors import Invalid
from temper.measure.stats.power import (
    clean_units_needed,
    paired_power,
    pairs_needed,
    rates_needed,
    units_needed,
    unpaired_power,
)


def test_textbook_sizes():
    """Cohen's table: d = 0.5 at 80 % power takes 64 in each of two arms, 34 pairs."""
    import math

    assert units_needed(math.expm1(0.5), 1.0) == 64
    assert pairs_needed(math.expm1(0.5), 1.0) == 34
    assert unpaired_power(math.expm1(0.5), 1.0, 64, 64) == pytest.approx(0.8015, abs=1e-4)
    assert paired_power(math.expm1(0.5), 1.0, 34) == pytest.approx(0.8078, abs=1e-4)


def test_rates_of_quality():
    assert rates_needed(0.9, 0.02) == 2783
    assert rates_needed(0.9, 0.02, discordant=0.06) == 928
    with pytest.raises(Invalid, match="above 0, not 0"):
        rates_needed(0.9, 0.0)


def test_the_rule_of_three():
    assert clean_units_needed(0.01) == 299
    assert clean_units_needed(0.05) == 59


def test_sides_and_signs():
    assert pairs_needed(0.1, 0.2, sides=1) < pairs_needed(0.1, 0.2)
    assert paired_power(-0.1, 0.1, 20) > paired_power(0.05, 0.1, 20) > paired_power(0.05, 0.1, 10)
    assert pairs_needed(5.0, 0.01) == 2
    with pytest.raises(Invalid, match="effect of 0"):
        pairs_needed(0.0, 0.1)
    with pytest.raises(Invalid, match="a billion"):
        units_needed(1e-6, 10.0)
