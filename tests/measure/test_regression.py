from __future__ import annotations

import numpy as np
import pytest

from temper.measure.history import Session
from temper.measure.regression import judge
from tests.measure.stats.nominal import most_errors

MACHINE = {
    "cpu": "X",
    "arch": "x86_64",
    "cores": 2,
    "usable_cores": 2.0,
    "isa": ["avx2"],
    "memory_limit_bytes": 8 << 30,
}


def session(
    rng, *, slow: float = 1.0, spread: float = 0.02, failing: int = 0, machine=MACHINE, version="v1"
) -> Session:
    """One session of two rounds in an hour of its own."""
    runs = []
    hour = {name: float(np.exp(rng.normal(0, spread))) for name in ("speed", "ttft", "itl", "e2e", "rss")}
    for number in range(2):
        runs.append(
            {
                "engine": "native", "concurrency": 4, "round": number, "requests": 500, "completed": 500 - failing,
                "output_tokens_per_s": 100 * hour["speed"] / slow, "prefill_tokens_per_s": None,
                "ttft_ms": {"p50": 50 * hour["ttft"] * slow}, "itl_ms": {"p50": 10 * hour["itl"] * slow},
                "e2e_ms": {"p50": 900 * hour["e2e"] * slow}, "rss_bytes": 1e9 * hour["rss"],
            }
        )  # fmt: skip
    return Session("default", version, {"requests": 8}, machine, runs, "0.1.0")


def recorded(rng, count: int, **more) -> list[Session]:
    return [session(rng, **more) for _ in range(count)]


def test_as_fast_as_ever_passes_and_slower_fails():
    rng = np.random.default_rng(1)
    baseline = recorded(rng, 12, spread=0.01)
    fine = judge(session(rng, spread=0.01), baseline)
    assert (fine["verdict"], fine["notes"]) == ("pass", [])
    assert {one["metric"] for one in fine["verdicts"]} == {
        "output_tokens_per_s", "ttft_ms.p50", "itl_ms.p50", "e2e_ms.p50", "rss_bytes", "failures",
    }  # fmt: skip
    slow = judge(session(rng, spread=0.01, slow=1.2), baseline)
    assert slow["verdict"] == "fail"
    assert [one["metric"] for one in slow["verdicts"] if one["verdict"] == "fail"] == [
        "output_tokens_per_s", "ttft_ms.p50", "itl_ms.p50", "e2e_ms.p50",
    ]  # fmt: skip


def test_failing_requests_are_a_regression():
    rng = np.random.default_rng(2)
    found = judge(session(rng, failing=30), recorded(rng, 5))
    assert found["verdict"] == "fail"
    assert found["reason"].startswith("failures: B is worse by +6 %")


def test_sessions_alike_are_called_a_regression_no_oftener_than_half_of_alpha():
    rng = np.random.default_rng(3)
    failed = sum(judge(session(rng), recorded(rng, 6))["verdict"] == "fail" for _ in range(300))
    assert failed <= most_errors(0.025, 300)


@pytest.mark.parametrize(("slow", "outcome"), [(1.05, "inconclusive"), (1.6, "fail")])
def test_one_session_before_tells_gross_changes_alone(slow, outcome):
    rng = np.random.default_rng(4)
    found = judge(session(rng, slow=slow), recorded(rng, 1))
    assert found["verdict"] == outcome
    assert any("taken to differ by 8%" in note for note in found["notes"])


def test_another_machine_is_no_baseline_and_named():
    rng = np.random.default_rng(5)
    other = {**MACHINE, "cpu": "Y", "usable_cores": 8.0}
    found = judge(session(rng, slow=3.0), recorded(rng, 5, machine=other))
    assert found["verdict"] == "inconclusive"
    assert "another machine only" in found["reason"]
    assert found["notes"][0].startswith(
        "machine mismatch: session None was recorded on Y with 8.0 cores, this is X with 2.0"
    )
    mixed = judge(session(rng, slow=3.0), [*recorded(rng, 5, machine=other), *recorded(rng, 3)])
    assert mixed["verdict"] == "fail"
    assert len(mixed["baseline"]) == 3
    assert "machine mismatch" in mixed["notes"][0]


def test_nothing_before_and_another_version_before_are_said():
    rng = np.random.default_rng(6)
    assert "run it with --record first" in judge(session(rng), [])["reason"]
    found = judge(session(rng, version="v2"), recorded(rng, 4))
    assert any("another version of this profile" in note for note in found["notes"])
