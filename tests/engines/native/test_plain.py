"""A section that crossed to a worker reads like the one it was."""

from __future__ import annotations

import subprocess
import sys

from temper.engines.native import wire
from temper.engines.native.hot import differs_only_hot
from temper.engines.native.plain import section_of, values_of
from temper.profile.schema import BatchingConfig, KvConfig, NativeEngine, SamplingConfig, ScheduleConfig
from temper.profile.walk import fields


def crossed(section: NativeEngine) -> NativeEngine:
    return section_of(wire.decode(wire.encode(values_of(section))[4:]))


def test_every_field_keeps_its_name_value_and_type():
    section = NativeEngine(
        checkpoint="a.gguf",
        sampling=SamplingConfig(temperature_schedule=ScheduleConfig(kind="list", values=(1.0, 0.5))),
    )
    there = crossed(section)
    for field in fields(section):
        before, after = section, there
        for part in field.path.split("."):
            before, after = getattr(before, part), getattr(after, part)
        assert (after, type(after)) == (before, type(before)), field.path


def test_what_may_change_while_running_is_the_same_on_both_sides():
    old = NativeEngine()
    hot = NativeEngine(kv=KvConfig(prefix_cache=False), batching=BatchingConfig(max_step_tokens=64))
    cold = NativeEngine(kv=KvConfig(block_tokens=64))
    for a, b, c in ((old, hot, cold), tuple(map(crossed, (old, hot, cold)))):
        assert differs_only_hot(a, b, built_step_tokens=512)
        assert not differs_only_hot(a, b, built_step_tokens=32)
        assert not differs_only_hot(a, c, built_step_tokens=512)


def test_a_worker_imports_no_schema():
    code = "import sys, temper.engines.native.worker, temper.engines.native.load; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "temper.profile.schema", "fastapi", "click", "rich", "scipy", "httpx"} & set(loaded)
