from __future__ import annotations

import pytest

from temper.errors import Invalid
from temper.measure.workload.lengths import Fixed, Uniform
from temper.measure.workload.options import Load
from temper.measure.workload.schema import Closed, Open


def test_one_variant_for_each_load():
    variants = Load(concurrency=(1, 32)).variants()
    assert [variant.arrivals for variant in variants] == [Closed(concurrency=1), Closed(concurrency=32)]
    assert [variant.requests for variant in variants] == [64, 256]
    variants = Load(rate=(0.5, 2), requests=10).variants()
    assert [variant.arrivals for variant in variants] == [Open(rate=0.5), Open(rate=2.0)]
    assert [variant.requests for variant in variants] == [10, 10]


def test_options_change_a_named_workload():
    (variant,) = Load(workload="low-latency", input_tokens="10-20", output_tokens=5, seed=3, warmup=0).variants()
    assert variant.name == "low-latency"
    assert variant.arrivals == Open(rate=1.0)
    assert variant.content.input_tokens == Uniform(low=10, high=20)
    assert variant.content.output_tokens == Fixed(tokens=5)
    assert (variant.seed, variant.warmup) == (3, 0)


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (Load(concurrency=(1,), rate=(1,)), "closed .concurrency. or open .rate., not both"),
        (Load(concurrency=(0,)), "'concurrency' must be above 0"),
        (Load(rate=(float("nan"),)), "'rate' must be above 0"),
        (Load(workload="edge", input_tokens=5), "prompts of a 'chats' workload have their own lengths"),
        (Load(input_tokens="many"), "'many' is not a length"),
    ],
)
def test_options_that_cannot_be_are_refused(load, said):
    with pytest.raises(Invalid, match=said):
        load.variants()
