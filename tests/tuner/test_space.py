from __future__ import annotations

import pytest

from temper.api import import_command
from temper.errors import Invalid
from temper.profile import store
from temper.profile.walk import tunable_fields
from temper.tuner.space import Point, Space, branch_of
from tests.tuner.studies import default, space


def test_every_tunable_field_is_a_knob_and_the_incumbent_is_on_every_ladder():
    profile = store.resolve("default")
    branch = branch_of("native", profile, text_knobs=True, most={"threads": 2})
    assert {knob.path for knob in branch.knobs} == {field.path for field in tunable_fields(profile)}
    assert all(knob.incumbent in knob.values for knob in branch.knobs)
    assert Space([branch]).profile(Space([branch]).incumbent) == profile


def test_what_is_said_stays_out_until_it_is_asked_for():
    paths = {knob.path for knob in branch_of("native", default()).knobs}
    assert not any(".sampling." in path or ".reasoning." in path for path in paths)
    named = branch_of("native", default(), only=("temperature", "kv.*"))
    assert {knob.path.rpartition(".")[2] for knob in named.knobs} == {
        "temperature", "block_tokens", "dtype", "prefix_cache", "evict_above",
    }  # fmt: skip


def test_ladders_follow_what_the_field_declares():
    knobs = {knob.name: knob for knob in branch_of("native", store.resolve("default"), most={"threads": 2}).knobs}
    assert knobs["batching.max_sequences"].values == (1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert knobs["batching.max_sequences"].ordered
    assert knobs["compute.threads"].values == (None, 1, 2)
    assert knobs["compute.threads"].incumbent is None
    assert knobs["kv.prefix_cache"].restart is False
    assert knobs["compute.precision"].values == ("as-stored", "int4", "int8", "bf16")


@pytest.mark.parametrize("line", ["vllm serve some/model --max-num-seqs 8", "llama-server -m model.gguf -np 4"])
def test_imported_command_lines_are_spaces_too(line):
    profile = import_command(line).profile
    found = Space([branch_of("imported", profile)])
    names = {knob.name for knob in found.branches[0].knobs}
    assert names & {"flags.max_num_seqs", "flags.parallel"}
    assert found.profile(found.incumbent) == profile
    for corner in ([0.0] * found.num_dimensions, [0.999] * found.num_dimensions):
        changed = found.profile(found.at(corner))
        assert changed.engine.kind == "process"
        assert changed != profile


def test_a_point_has_one_key_and_shares_a_start_with_its_hot_neighbours():
    found = space(only=("max_sequences", "prefix_cache"), ladders={})
    assert [knob.restart for knob in found.branches[0].knobs] == [False, True]
    a, b = found.at([0.0, 0.0, 0.0]), found.at([0.0, 0.99, 0.0])
    assert a.key != b.key
    assert found.cold_part(a) == found.cold_part(b)
    assert len({point.key for point in found.grid()}) == found.size


def test_values_become_the_profile():
    found = space()
    point = Point("native", tuple((path, {2: 16}.get(value, value)) for path, value in found.incumbent.values))
    assert found.profile(point).engine.batching.max_sequences == 16


def test_a_name_that_fits_nothing_is_refused_with_the_nearest():
    with pytest.raises(Invalid, match="max_sequence"):
        branch_of("native", default(), only=("max_sequence",))
    with pytest.raises(Invalid, match="nothing to tune"):
        branch_of("native", default(), only=("threads",), without=("threads",))
