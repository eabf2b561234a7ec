from __future__ import annotations

import math

from temper.engines.native.steps import EDGES, StepSizes


def test_buckets_are_cumulative_and_edges_inclusive():
    sizes = StepSizes()
    for tokens in (1, 1, 8, 9, 512, 99999):
        sizes.count(tokens)
    found = sizes.histogram()
    buckets = dict(found["buckets"])
    assert sizes.num_steps == 6
    assert found["sum"] == 1 + 1 + 8 + 9 + 512 + 99999
    assert (buckets[1.0], buckets[8.0], buckets[16.0], buckets[512.0]) == (2, 3, 4, 5)
    assert buckets[16384.0] == 5
    assert buckets[math.inf] == 6
    assert len(buckets) == len(EDGES) + 1
