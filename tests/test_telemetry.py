"""Live figures and metrics from a scripted clock."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from temper.engines.base import Stats
from temper.errors import EngineFailure
from temper.telemetry import LiveFigures, Telemetry
from temper.types import Delta, Done, Failed, Finished, Started, Timings, ToolDelta, Usage


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


STATS = Stats(num_running=2, num_waiting=3, kv_used_bytes=50, kv_budget_bytes=200, kv_usage=0.25)


def sample(telemetry: Telemetry, name: str, **labels: str) -> float:
    text = telemetry.exposition()[0].decode()
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            if one.name == name and labels.items() <= one.labels.items():
                return one.value
    raise KeyError(name)


@given(st.lists(st.floats(1e-6, 1e3), min_size=100))
def test_a_percentile_is_near_a_value_that_so_many_do_not_exceed(values: list[float]):
    clock = Clock()
    live = LiveFigures(dict, clock=clock)
    for value in values:
        live.add_gap(clock.now, value)
    found = live.snapshot()["inter_token_ms"]
    assert found.pop("count") == len(values)
    for name, shown in found.items():
        exact = sorted(values)[math.ceil(len(values) * int(name[1:]) / 100) - 1]
        assert shown / 1000 == pytest.approx(exact, rel=0.0051, abs=1e-6)


def test_a_request_is_followed():
    clock = Clock()
    telemetry = Telemetry(lambda: {"m": STATS}, clock=clock)
    watch = telemetry.observer("m")
    clock.now += 1
    watch.see(Started(10, 4))
    watch.see(Delta(0, "the prompt", (1, 2), channel="prompt"))
    clock.now += 2
    watch.see(Delta(0, "", (5,)))
    clock.now += 0.5
    watch.see(Delta(0, "two tokens", (6, 7)))
    watch.see(Delta(0, "text without a token"))
    watch.see(Finished(0, "stop"))
    watch.see(Done(Usage(10, 4, 3), Timings(0.25, 0.5, 0.125)))
    watch.close()
    assert sample(telemetry, "vllm:time_to_first_token_seconds_sum", model_name="m") == 3.0
    assert sample(telemetry, "vllm:inter_token_latency_seconds_sum") == 0.5
    assert sample(telemetry, "vllm:inter_token_latency_seconds_count") == 1
    assert sample(telemetry, "vllm:e2e_request_latency_seconds_sum") == 3.5
    assert sample(telemetry, "vllm:request_queue_time_seconds_sum") == 0.25
    assert sample(telemetry, "vllm:request_prefill_time_seconds_sum") == 0.5
    assert sample(telemetry, "vllm:request_decode_time_seconds_sum") == 0.125
    assert sample(telemetry, "vllm:request_success_total", finished_reason="stop") == 1
    with pytest.raises(KeyError):
        sample(telemetry, "vllm:request_success_total", finished_reason="abort")
    live = telemetry.live.snapshot()
    assert live["completed_total"] == 1
    assert live["prefix_hit_rate"] == 0.4
    assert (live["running"], live["waiting"], live["kv_usage"]) == (2, 3, 0.25)


@pytest.mark.parametrize(
    ("events", "reason", "count"),
    [
        ([Started(1)], "abort", "cancelled_total"),
        ([Started(1), Failed(EngineFailure("x"))], "error", "failed_total"),
    ],
)
def test_ends_that_are_no_success(events: list, reason: str, count: str):
    telemetry = Telemetry(dict)
    watch = telemetry.observer("m")
    for event in events:
        watch.see(event)
    watch.close()
    watch.close()
    assert sample(telemetry, "vllm:request_success_total", finished_reason=reason) == 1
    assert telemetry.live.snapshot()[count] == 1


def test_engines_without_token_ids_count_pieces_of_text():
    telemetry = Telemetry(dict)
    watch = telemetry.observer("m")
    for event in (Delta(0, "a"), Delta(0, ""), Delta(0, "b"), ToolDelta(0, 0, "id", "f", "{}")):
        watch.see(event)
    assert sample(telemetry, "vllm:inter_token_latency_seconds_count") == 2


def test_rates_forget_what_is_over():
    clock = Clock()
    live = LiveFigures(dict, clock=clock)
    clock.now += 10
    for _ in range(20):
        clock.now += 0.1
        live.add_output(clock.now, 5)
    assert live.snapshot()["tokens_per_s"] == pytest.approx(50, rel=0.3)
    clock.now += 5
    assert live.snapshot()["tokens_per_s"] == 0


def test_percentiles_forget_and_need_enough():
    clock = Clock()
    live = LiveFigures(dict, clock=clock, window_s=60)
    for i in range(99):
        live.add_first_token(clock.now, i / 1000)
    assert live.snapshot()["ttft_ms"]["p99"] is None
    live.add_first_token(clock.now, 0.099)
    assert live.snapshot()["ttft_ms"] == pytest.approx({"count": 100, "p50": 49.0, "p90": 89.0, "p99": 98.0}, rel=0.006)
    clock.now += 61
    assert live.snapshot()["ttft_ms"] == {"count": 0, "p50": None, "p90": None, "p99": None}


def test_memory_is_bounded():
    clock = Clock()
    live = LiveFigures(dict, clock=clock, window_s=60)
    for number in range(5000):
        clock.now += 0.3
        live.add_output(clock.now, 1)
        live.add_gap(clock.now, 0.3 + number / 1000)
        live.add_prompt(clock.now, 5, 0)
    assert 190 <= live.snapshot()["inter_token_ms"]["count"] <= 200 + 7
    assert len(live._rates) < 10
    assert len(live._inter_token) <= 32
    assert sum(map(len, live._inter_token.within(clock.now))) < 210


def test_a_time_of_nothing_is_a_small_time():
    clock = Clock()
    live = LiveFigures(dict, clock=clock)
    live.add_gap(clock.now, 0.0)
    live.add_gap(clock.now, 0.0)
    assert live.snapshot()["inter_token_ms"]["p50"] == 0.0


def test_step_sizes_are_exported_where_an_engine_counts_them():
    sizes = {"buckets": [(1, 3), (8, 5), (float("inf"), 6)], "sum": 40}
    telemetry = Telemetry(lambda: {"m": Stats(details={"iteration_tokens": sizes}), "other": Stats()})
    assert sample(telemetry, "vllm:iteration_tokens_total_bucket", le="8.0") == 5
    assert sample(telemetry, "vllm:iteration_tokens_total_count") == 6
