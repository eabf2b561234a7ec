from __future__ import annotations

import asyncio
import itertools

import pytest

from temper.errors import QueueFull
from temper.measure.latency import figures
from temper.measure.loadgen import Outcome, drive
from temper.measure.workload.plan import plan
from temper.measure.workload.schema import Closed, Targets, validate
from temper.measure.workload.text import Wording
from tests.measure.virtual import PacedEngine, run


def asked(engine: PacedEngine, **given: object) -> list[Outcome]:
    workload = validate({"requests": 40, **given})
    sessions = plan(workload, Wording())
    arrivals = workload.arrivals
    concurrency = arrivals.concurrency if isinstance(arrivals, Closed) else None

    async def work() -> list[Outcome]:
        clock = asyncio.get_running_loop().time
        found = await drive(engine, sessions, concurrency=concurrency, timeout_s=workload.timeout_s, clock=clock)
        return found.outcomes

    return run(work())


SHORT = {
    "kind": "synthetic",
    "input_tokens": {"kind": "fixed", "tokens": 8},
    "output_tokens": {"kind": "fixed", "tokens": 5},
}


def test_figures_of_a_known_engine_are_exact():
    outcomes = asked(PacedEngine(0.050, 0.010), arrivals={"kind": "closed", "concurrency": 4}, content=SHORT)
    found = figures(outcomes, Targets())
    assert found["completed"] == 40
    assert found["ttft_ms"]["p50"] == pytest.approx(50)
    assert found["ttfat_ms"]["p90"] == pytest.approx(70)  # the third token is the first of the answer
    assert found["itl_ms"]["p50"] == pytest.approx(10)
    assert found["itl_ms"]["count"] == 40 * 4  # the first token is no inter-token latency
    assert found["tpot_ms"]["max"] == pytest.approx(10)
    assert found["e2e_ms"]["p90"] == pytest.approx(90)
    assert found["duration_s"] == pytest.approx(10 * 0.090)
    assert found["output_tokens_per_s"] == pytest.approx(40 * 5 / 0.9, rel=1e-4)
    assert found["reasoning_tokens"] == 80
    assert found["tokens_per_piece"] == 1


def test_closed_loop_keeps_exactly_its_concurrency():
    engine = PacedEngine(0.050, 0.010)
    asked(engine, arrivals={"kind": "closed", "concurrency": 7}, content=SHORT)
    assert engine.most_at_once == 7


def test_open_loop_sends_on_schedule_whatever_the_engine_does():
    engine = PacedEngine(60.0, 0.0)  # nothing is answered while requests are sent
    outcomes = asked(engine, arrivals={"kind": "open", "rate": 10.0}, content=SHORT)
    workload = validate({"requests": 40, "arrivals": {"kind": "open", "rate": 10.0}, "content": SHORT})
    due = [session.start_s for session in plan(workload, Wording())]
    assert [at for at, _ in engine.seen] == pytest.approx(due)
    assert engine.most_at_once == 40
    assert sorted(outcome.due_s for outcome in outcomes) == pytest.approx(due)


def test_a_stall_is_seen_by_the_open_loop_and_hidden_by_a_closed_one():
    """Coordinated omission: a server stands still for 5 s; 10 requests a second are due meanwhile."""

    def engine() -> PacedEngine:
        return PacedEngine(0.010, 0.001, stall_at_s=10.0, stall_s=5.0)

    open_loop = asked(engine(), requests=300, arrivals={"kind": "open", "rate": 10.0}, content=SHORT)
    closed_loop = asked(engine(), requests=300, arrivals={"kind": "closed", "concurrency": 1}, content=SHORT)
    slow_open = sum(outcome.arrivals_s[0] - outcome.due_s > 0.1 for outcome in open_loop)
    slow_closed = sum(outcome.arrivals_s[0] - outcome.due_s > 0.1 for outcome in closed_loop)
    due_in_stall = sum(9.99 < outcome.due_s < 14.9 for outcome in open_loop)
    assert slow_closed <= 1
    assert slow_open == due_in_stall > 30
    assert figures(open_loop, Targets())["ttft_ms"]["p90"] > 1000
    assert figures(closed_loop, Targets())["ttft_ms"]["p90"] < 20


def test_latency_counts_from_the_scheduled_time_even_when_sent_late():
    outcome = Outcome("late", due_s=1.0, sent_s=3.0, end_s=4.0, arrivals_s=[3.5], output_tokens=1, failure=None)
    found = figures([outcome] * 5, Targets())
    assert found["ttft_ms"]["p50"] == pytest.approx(2500)
    assert found["e2e_ms"]["p50"] == pytest.approx(3000)


def test_failures_are_counted_by_kind_and_kept_out_of_the_latencies():
    engine = PacedEngine(0.01, 0.01)
    engine.refuse = QueueFull("full")
    found = figures(asked(engine, arrivals={"kind": "closed", "concurrency": 2}, content=SHORT), Targets())
    assert found["failures"] == {"queue_full": 40}
    assert found["completed"] == 0
    assert found["ttft_ms"]["p50"] is None

    engine = PacedEngine(0.01, 0.01)
    engine.break_after = 3
    found = figures(asked(engine, arrivals={"kind": "closed", "concurrency": 2}, content=SHORT), Targets())
    assert found["failures"] == {"engine_died": 40}
    assert found["failure_messages"] == {"engine_died": "gone"}


def test_a_request_that_takes_too_long_is_a_failure():
    found = figures(asked(PacedEngine(100.0, 0.1), timeout_s=5.0, content=SHORT, requests=3), Targets())
    assert found["failures"] == {"timeout": 3}
    assert found["duration_s"] == pytest.approx(15.0)


def test_turns_of_a_chat_wait_for_each_other():
    engine = PacedEngine(0.050, 0.010)
    chats = {"kind": "chats", "turns": {"kind": "fixed", "tokens": 4}, "pause_s": 1.0,
             "output_tokens": {"kind": "fixed", "tokens": 5}}  # fmt: skip
    outcomes = asked(engine, requests=4, arrivals={"kind": "open", "rate": 1.0}, content=chats)
    sent = [at for at, _ in engine.seen]
    assert [later - earlier for earlier, later in itertools.pairwise(sent)] == pytest.approx([1.09] * 3)
    assert all(outcome.due_s == pytest.approx(outcome.sent_s) for outcome in outcomes)
    lengths = [len(request.messages or ()) for _, request in engine.seen]
    assert lengths == [2, 4, 6, 8]
