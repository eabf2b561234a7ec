from __future__ import annotations

from temper.tuner.space import Space, branch_of
from temper.tuner.study import Proposals, Told
from tests.tuner.studies import default, space


def told(found: Space, count: int) -> list[Told]:
    points = Proposals(found, 3).controls(0, count, set())
    return [Told(point, float(index % 5), {"trouble": float(index % 7 == 0)}) for index, point in enumerate(points)]


def test_the_same_trial_of_the_same_study_is_proposed_whoever_asks():
    found = space()
    history = told(found, 12)
    first = [Proposals(found, 1).modelled(number, history, set(), None) for number in (12, 13)]
    again = [Proposals(found, 1).modelled(number, history, set(), None) for number in (12, 13)]
    assert first == again
    assert first != [Proposals(found, 2).modelled(number, history, set(), None) for number in (12, 13)]


def test_what_was_seen_or_is_hopeless_is_not_proposed():
    found = space()
    history = told(found, 12)
    seen = {item.point.key for item in history}
    for number in range(12, 24):
        points = Proposals(found, 1).modelled(number, history, seen, None, lambda p: ("x", 1) in p.values)
        assert not {point.key for point in points} & seen
    assert Proposals(found, 1).modelled(5, history, set(), None, lambda point: True) == []


def test_the_control_arm_covers_a_small_space_without_repeats():
    found = space()
    points = Proposals(found, 0).controls(0, found.size, set())
    assert len({point.key for point in points}) == found.size
    assert Proposals(found, 0).control(0, {point.key for point in points}) is None


def test_trials_that_share_a_start_differ_in_hot_knobs_alone():
    found = Space([branch_of("native", default(), only=("max_sequences", "prefix_cache", "evict_above"))])
    history = told(found, 10)
    within = history[-1].point
    for number in range(10, 16):
        points = Proposals(found, 1).modelled(number, history, set(), within)
        assert points
        assert {found.cold_part(point) for point in points} == {found.cold_part(within)}


def test_engines_are_chosen_among_branches():
    one = branch_of("small", default(), only=("max_sequences",))
    two = branch_of("other", default(), only=("precision",))
    found = Space([one, two])
    points = Proposals(found, 0).controls(0, 12, set())
    assert {point.branch for point in points} == {"small", "other"}
    history = [Told(point, 0.0 if point.branch == "other" else 2.0, {}) for point in points]
    proposed = [point for number in (12, 13) for point in Proposals(found, 0).modelled(number, history, set(), None)]
    assert sum(point.branch == "other" for point in proposed) > len(proposed) / 2
