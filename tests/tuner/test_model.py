from __future__ import annotations

import pytest

from temper.measure.workload.lengths import Fixed
from temper.measure.workload.schema import Closed, Synthetic, Workload
from temper.tuner.evaluate import Block
from temper.tuner.model import FEWEST_TRIALS, Facts, Model
from temper.tuner.space import Point, Space, branch_of
from tests.tuner.studies import LADDERS, default, space

FACTS = Facts(num_weights=10**9, stored_bytes=600 * 10**6, num_layers=20, kv_width=512)
LOAD = Workload(
    arrivals=Closed(concurrency=32),
    content=Synthetic(input_tokens=Fixed(tokens=64), output_tokens=Fixed(tokens=64)),
)


def made(found: Space, memory_bytes: int = 8 * 10**9) -> Model:
    return Model(found, LOAD, {"native": FACTS}, memory_bytes)


def point(**values: object) -> Point:
    base = dict(space().incumbent.values)
    return Point("native", tuple((path, values.get(path.rpartition(".")[2], value)) for path, value in base.items()))


def truth(at: Point) -> float:
    """Tokens a second of a machine that reads 10 GB/s and multiplies 100 G weights a second."""
    values = dict(at.values)
    each = {"as-stored": 0.6, "int4": 0.625, "int8": 1.0625}[values["engine.compute.precision"]]
    work = {"none": 1.0, "head": 1.2, "all": 2.0}[values["engine.compute.two_digits"]]
    batch = values["engine.batching.max_sequences"]
    return batch / (10**9 * each / 10e9 + 10**9 * work * 2 * batch / 100e9)


def test_what_cannot_fit_is_told_before_it_is_started():
    assert made(space()).unfit(point(precision="int8")) is None
    small = made(space(), 10**9)
    assert "needs about" in small.unfit(point(precision="int8"))
    assert small.unfit(point(precision="as-stored", max_sequences=1)) is None


def test_memory_is_corrected_by_what_was_measured():
    model = made(space(), 2 * 10**9)
    assert model.unfit(point(precision="int8")) is None
    model.learn(point(), Block(figures={"rss_bytes": 2.0 * model.memory(point())}))
    assert "needs about" in model.unfit(point(precision="int8"))
    assert model.document()["memory_correction"] == pytest.approx(2.0)


def test_the_model_of_time_finds_the_machine_and_says_how_wrong_it_is():
    model = made(space())
    for at in space().grid()[::7]:
        model.learn(at, Block(figures={"output_tokens_per_s": truth(at)}))
    found = model.document()
    assert found["points"] >= FEWEST_TRIALS
    assert found["time_error"] < 0.02
    assert found["bandwidth_bytes_per_s"] == pytest.approx(10e9, rel=0.1)
    slow, fast = point(max_sequences=1, two_digits="all"), point(max_sequences=32, two_digits="none")
    gain, _ = model.gain(fast)
    assert model.is_far_behind(slow, gain)
    assert model.is_far_behind(fast, gain) is None


def test_of_servers_of_other_makes_it_says_nothing():
    found = Space([branch_of("native", default(), only=tuple(LADDERS), ladders=LADDERS)])
    model = Model(found, LOAD, {"native": None}, 1)
    assert model.unfit(found.incumbent) is None
    assert model.gain(found.incumbent) is None
    assert model.document()["applies"] is False
