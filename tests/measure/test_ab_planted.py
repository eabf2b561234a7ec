"""What `temper ab` says of fake engines with a known difference: virtual time, so that a millisecond is one."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager

import pytest

from temper.engines.fake import FakeEngine
from temper.measure.ab import Design, compare
from temper.measure.ab_verdict import judge
from temper.measure.bench import Subject
from temper.measure.stats.verdict import Verdict
from temper.measure.subjects import Opened
from temper.measure.workload.lengths import Fixed
from temper.measure.workload.schema import Closed, Synthetic, Workload
from temper.profile import schema
from tests.measure.stats.nominal import most_errors
from tests.measure.virtual import run

WORKLOAD = Workload(
    warmup=2,
    ignore_eos=False,
    arrivals=Closed(concurrency=4),
    content=Synthetic(input_tokens=Fixed(tokens=6), output_tokens=Fixed(tokens=6)),
)
PACE = "words+ttft:lognormal(40,0.3)+itl:exponential(5)"
SMALL = Design(12, requests=16)


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch):
    """The fake engine's clock is the loop's."""
    monkeypatch.setattr(time, "monotonic", lambda: asyncio.get_running_loop().time())


def arm(script: str, seed: int):
    starts = itertools.count()

    @asynccontextmanager
    async def opening():
        # Chance is the engine's seed and its count of requests: without a new seed every start would be the same one.
        engine = FakeEngine(schema.FakeEngine(script=script, seed=1000 * seed + next(starts)))
        await engine.start()
        try:
            yield Opened([Subject("fake", engine)])
        finally:
            await engine.stop()

    return opening


def verdict(b: str, *, a: str = PACE, design: Design = SMALL, seed: int = 0) -> Verdict:
    async def work():
        return await compare(
            arm(a, 2 * seed), arm(b, 2 * seed + 1), WORKLOAD, design, clock=lambda: asyncio.get_running_loop().time()
        )

    return judge(run(work()))


def test_20_percent_slower_between_tokens_fails():
    found = verdict("words+ttft:lognormal(48,0.3)+itl:exponential(6)")
    assert found.verdict == "fail"
    assert found.interval[0] < 0.2 < found.interval[1]


def test_20_percent_faster_passes_where_the_sample_settles_the_guardrails():
    found = verdict("words+ttft:lognormal(33,0.3)+itl:exponential(4.17)", design=Design(20))
    assert (found.verdict, [guard.verdict for guard in found.guardrails]) == ("pass", ["pass"] * 3)


@pytest.mark.parametrize(("percent", "outcomes"), [(1, ("fail", "inconclusive")), (4, ("fail",))])
def test_failing_is_caught_though_it_is_faster(percent, outcomes):
    found = verdict(f"{PACE.replace('(5)', '(4)')}+error-500%{percent}", design=Design(24, requests=16))
    assert found.effect < 0
    assert found.verdict in outcomes
    assert "failures" in found.reason


def test_saying_less_is_caught_though_it_is_faster():
    found = verdict(PACE.replace("words", "count:3"), a=PACE.replace("words", "count:6"))
    assert found.effect < -0.1
    assert found.reason.startswith("output_tokens fails: B differs by -")


@pytest.mark.parametrize("design", [Design(8, requests=8), Design(6, restart=True, requests=6)])
def test_a_against_a_is_inconclusive(design):
    found = [verdict(PACE, design=design, seed=seed) for seed in range(6)]
    assert sum(one.verdict != "inconclusive" for one in found) <= most_errors(0.05, 6)
    assert all(one.reason for one in found)
