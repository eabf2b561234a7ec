from __future__ import annotations

import pytest

from temper.measure.stats.percentile import CLAIM_CONFIDENCE, nearest_rank, values_needed


def test_nearest_rank_is_a_value_of_the_sample():
    values = [float(value) for value in range(1, 101)]
    assert nearest_rank(values, 50) == 50
    assert nearest_rank(values, 90) == 90
    assert nearest_rank(values, 99) == 99
    assert nearest_rank(values, 100) == 100
    assert nearest_rank([3.0], 99) == 3.0
    assert nearest_rank([3.0], 0) == 3.0


@pytest.mark.parametrize(
    ("percent", "for_reports", "for_claims"), [(50, 5, 7), (90, 29, 44), (95, 59, 90), (99, 299, 459)]
)
def test_how_many_values_carry_a_percentile(percent, for_reports, for_claims):
    assert values_needed(percent) == for_reports
    assert values_needed(percent, CLAIM_CONFIDENCE) == for_claims
    assert 1 - (percent / 100) ** for_claims >= CLAIM_CONFIDENCE > 1 - (percent / 100) ** (for_claims - 1)
