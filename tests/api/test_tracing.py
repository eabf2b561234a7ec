from __future__ import annotations

import pytest

import temper
from temper.api.environment import Place
from temper.errors import Invalid


def test_a_trace_is_one_call(tmp_path):
    where = Place(home=tmp_path, cache_dir=tmp_path)
    changes = {"engine.kind": "fake", "engine.script": "words"}
    load = {"concurrency": (2,), "requests": 4, "warmup": 0, "input_tokens": 6, "output_tokens": 3}
    found = temper.trace(in_process=True, load=load, where=where, **changes)
    (one,) = found["runs"]
    assert (one["completed"], one["concurrency"], one["output_tokens"]) == (4, 2, 12)
    with pytest.raises(Invalid, match="not both"):
        temper.trace(in_process=True, load={"concurrency": (2,), "rate": (1.0,)}, where=where, **changes)
