from __future__ import annotations

import random

from temper.tuner import effects
from temper.tuner.space import Point
from temper.tuner.study import Proposals
from tests.tuner.studies import space


def worth(point: Point) -> float:
    values = dict(point.values)
    return 0.3 * (values["engine.compute.two_digits"] == "none") - 0.2 * (values["engine.compute.precision"] == "int8")


def test_the_knobs_that_decide_are_told_from_those_that_came_along():
    found = space()
    draw = random.Random(0)
    measured = [(p, worth(p) + draw.gauss(0, 0.02)) for p in Proposals(found, 0).controls(0, 24, set())]
    model = effects.fit(found.branches[0], measured)
    shares = model.importance()
    assert list(shares)[:2] == ["engine.compute.two_digits", "engine.compute.precision"]
    assert shares["engine.batching.max_sequences"] < 0.1
    assert abs(sum(shares.values()) - 1) < 1e-9
    leader = Point(
        "native",
        (
            ("engine.batching.max_sequences", 8),
            ("engine.compute.precision", "int4"),
            ("engine.compute.two_digits", "none"),
        ),
    )
    kept = dict(effects.simpler(found.branches[0], leader, model, 0.05).values)
    assert kept == {
        "engine.batching.max_sequences": 2,
        "engine.compute.precision": "as-stored",
        "engine.compute.two_digits": "none",
    }


def test_little_is_known_of_few_points():
    found = space()
    assert effects.fit(found.branches[0], [(found.incumbent, 0.0)]).importance() == {}


def test_what_a_point_may_gain_is_told_before_it_is_tried():
    found = space()
    draw = random.Random(1)
    measured = [(p, worth(p) + draw.gauss(0, 0.01)) for p in Proposals(found, 0).controls(0, 16, set())]
    model = effects.fit(found.branches[0], measured)
    best = max(found.grid(), key=lambda point: model.predicted(found.branches[0], point))
    assert worth(best) == max(worth(point) for point in found.grid())
    assert effects.fit(found.branches[0], []).predicted(found.branches[0], found.incumbent) == 0
