"""The walk finds every field of the schema, and what a study may vary."""

from __future__ import annotations

import pytest

from temper.profile.schema import FakeEngine, Profile
from temper.profile.walk import fields, tunable_fields


def by_path(kind="native"):
    return {field.path: field for field in fields() if field.kind in (None, kind)}


@pytest.mark.parametrize("field", fields(), ids=lambda field: f"{field.kind}:{field.path}")
def test_every_field_says_what_values_it_takes(field):
    assert field.rule


def test_rules_in_words():
    known = by_path()
    assert known["engine.batching.max_sequences"].rule == "a whole number, at least 1, at most 4096"
    assert known["engine.kv.budget_bytes"].rule == "a whole number, at least 1048576 or 'auto'"
    assert known["engine.kv.block_tokens"].rule == "one of 16, 32, 64, 128"
    assert known["engine.sampling.top_p"].rule == "a number, above 0, at most 1, or left out"


def test_choices_are_there_for_literals_alone():
    known = by_path()
    assert known["engine.compute.precision"].choices == ("as-stored", "int4", "int8", "bf16")
    assert known["engine.compute.threads"].choices == ()


def test_defaults_and_descriptions_come_from_the_schema():
    field = by_path()["engine.batching.max_sequences"]
    assert (field.default, field.description, field.name) == (64, "Sequences in one step.", "max_sequences")


def test_a_profile_walks_only_the_engine_it_has():
    paths = {field.path for field in fields(Profile(engine=FakeEngine()))}
    assert "engine.script" in paths
    assert "engine.kv.dtype" not in paths


def test_what_a_study_may_vary_has_a_range_or_choices_that_the_schema_takes():
    tunable = tunable_fields(Profile())
    assert "engine.batching.max_sequences" in {field.path for field in tunable}
    for field in tunable:
        mark = field.tunable
        assert mark is not None
        assert mark.choices or (mark.low is not None and mark.high is not None and mark.low < mark.high), field.path
        if mark.scale == "log":
            assert mark.low is not None
            assert mark.low > 0
