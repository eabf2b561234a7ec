from __future__ import annotations

import asyncio
import contextlib
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from temper import types
from temper.engines.base import Capabilities, Health, Stats
from temper.engines.native import wire
from temper.errors import EngineFailure, Invalid, TemperError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
INT = st.integers(-(2**63), 2**64 - 1)
TOKEN = st.builds(types.TokenLogprob, INT, st.text(), st.binary(), st.none() | st.floats(allow_nan=False))
EVENTS = st.one_of(
    st.builds(types.Accepted, INT),
    st.builds(types.Started, INT, INT),
    st.builds(
        types.Delta, INT, st.text(), st.lists(INT).map(tuple), st.none() | st.lists(TOKEN, max_size=3).map(tuple)
    ),
    st.builds(types.ToolDelta, INT, INT, st.none() | st.text(), st.none() | st.text(), st.text()),
    st.builds(types.Finished, INT, st.just("stop"), st.none() | st.text() | INT),
)
REQUESTS = st.builds(
    types.Request,
    id=st.text(),
    messages=st.none() | st.lists(st.from_type(types.Message), max_size=3).map(tuple),
    prompt=st.none() | st.text() | st.lists(INT).map(tuple),
    tools=st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=2).map(tuple),
    response_format=st.none() | st.dictionaries(st.text(), JSON, max_size=3),
    sampling=st.builds(
        types.Sampling,
        temperature=st.none() | st.floats(allow_nan=False),
        seed=st.none() | INT,
        logit_bias=st.lists(st.tuples(INT, st.floats(allow_nan=False))).map(tuple),
        temperature_schedule=st.none()
        | st.builds(types.TemperatureSchedule, kind=st.just("list"), values=st.tuples(st.just(0.5))),
    ),
    priority=INT,
    extensions=st.dictionaries(st.text(), JSON, max_size=3),
)


def round_trip(message: object) -> object:
    frame = wire.encode(message)
    return wire.decode(frame[4:])


@given(REQUESTS)
@settings(max_examples=150, deadline=None)
def test_requests_come_back_equal(request_: types.Request):
    assert round_trip(("generate", 7, request_)) == ("generate", 7, request_)


@given(st.lists(EVENTS, max_size=5))
@settings(max_examples=150, deadline=None)
def test_events_come_back_equal(events: list[types.Event]):
    found = round_trip(events)
    assert found == events
    assert [type(e) for e in found] == [type(e) for e in events]


def test_what_an_engine_says_of_itself():
    for said in (
        Capabilities("m", context_length=5, adapters=("a",)),
        Health(True, False, "why", {"x": Health(True, True)}),
        Stats(num_running=3, details={"threads": 2, "isa": "avx512"}),
        types.Done(types.Usage(1, 2, 3, 4), types.Timings(1.5), types.MadeBy(("native",), precision="int4")),
    ):
        assert round_trip(said) == said


def all_errors(kind: type[TemperError] = TemperError) -> list[type[TemperError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in all_errors(child))]


@pytest.mark.parametrize("kind", all_errors())
def test_errors_keep_their_class_and_their_texts(kind: type[TemperError]):
    error = kind("rule", param="p", hint="fix", retry_after_s=2.5)
    found = round_trip(types.Failed(error))
    assert isinstance(found, types.Failed)
    assert type(found.error) is kind
    assert (found.error.message, found.error.param, found.error.hint, found.error.retry_after_s) == (
        "rule", "p", "fix", 2.5,
    )  # fmt: skip


def test_arrays():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = round_trip(("rows", 1, array))
    np.testing.assert_array_equal(found[2], array)
    assert found[2].dtype == np.float32


def test_what_has_no_place_is_an_invalid_request():
    with pytest.raises(Invalid):
        wire.encode(types.Request(id="x", priority=2**70))
    with pytest.raises(Invalid):
        wire.encode(object())
    with pytest.raises(Invalid, match="bytes"):
        wire.encode("x" * (wire.MAX_FRAME_BYTES + 1))
    deep: list[object] = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(Invalid):
        wire.encode(types.Request(id="x", response_format={"a": deep}))


def test_lone_surrogates_travel():
    assert round_trip("a\ud800b") == "a\ud800b"


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_garbage_is_an_error_not_a_crash(garbage: bytes):
    with contextlib.suppress(EngineFailure):
        wire.decode(garbage)


async def test_frames_over_a_stream():
    reader = asyncio.StreamReader()
    reader.feed_data(wire.encode(("a", 1)) + wire.encode(["b"]))
    reader.feed_eof()
    assert await wire.read(reader) == ("a", 1)
    assert await wire.read(reader) == ["b"]
    assert await wire.read(reader) is None


async def test_too_long_a_frame_is_refused_before_it_is_read():
    reader = asyncio.StreamReader()
    reader.feed_data((wire.MAX_FRAME_BYTES + 1).to_bytes(4, "little"))
    with pytest.raises(EngineFailure, match="limit"):
        await wire.read(reader)


def test_each_dataclass_of_the_vocabulary_is_on_the_wire():
    spoken = {kind for kind in vars(types).values() if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__")}
    assert spoken <= set(wire._ORDER)
    assert all(fields(kind) for kind in wire._ORDER)
