"""What is sent to whom, in which order. What it means is `ab_verdict`'s."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest

from temper.engines.fake import FakeEngine
from temper.errors import Invalid, NotFound
from temper.measure import ab
from temper.measure.bench import Subject
from temper.measure.stats.verdict import Verdict
from temper.measure.subjects import Opened
from temper.measure.workload import schema as workloads
from temper.profile import schema, store
from temper.profile.schema import Profile

WORKLOAD = workloads.Workload(
    warmup=2,
    ignore_eos=False,
    arrivals=workloads.Closed(concurrency=2),
    content=workloads.Synthetic(
        input_tokens={"kind": "fixed", "tokens": 6}, output_tokens={"kind": "fixed", "tokens": 8}
    ),
)


def arm(log: list[str], name: str, **config):
    @asynccontextmanager
    async def opening():
        engine = FakeEngine(schema.FakeEngine(script="words", **config))
        await engine.start()
        log.append(f"start {name}")
        try:
            yield Opened([Subject(name, engine)])
        finally:
            await engine.stop()
            log.append(f"stop {name}")

    return opening


async def test_blocks_take_turns_and_hold_the_same_requests():
    log: list[str] = []
    measured = await ab.compare(arm(log, "a"), arm(log, "b"), WORKLOAD, ab.Design(4, requests=5), tell=log.append)
    assert [line for line in log if line.startswith("block")] == [
        f"block {number} of 4: {side}" for number, order in enumerate(("AB", "BA", "AB", "BA"), 1) for side in order
    ]
    assert [block.unit for block in measured.blocks] == [0, 1, 2, 3]
    for block in measured.blocks:
        assert sorted(o.name for o in block.a) == sorted(o.name for o in block.b)
        assert len(block.a) == 5
        assert not any(o.failure for o in (*block.a, *block.b))
    names = [o.name for block in measured.blocks for o in block.a]
    assert len(set(names)) == 20  # nothing is asked twice
    assert log[:2] == ["A: starting", "start a"]
    assert log[-2:] == ["stop b", "stop a"]


async def test_questions_of_a_file_are_asked_one_after_the_other_and_then_again(tmp_path):
    file = tmp_path / "asked.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"question {number}"}) for number in range(10)))
    workload = WORKLOAD.model_copy(update={"content": workloads.Questions(path=str(file))})
    log: list[str] = []
    measured = await ab.compare(arm(log, "a"), arm(log, "b"), workload, ab.Design(3, requests=4), tell=log.append)
    asked = [sorted(outcome.name for outcome in block.a) for block in measured.blocks]
    assert asked[0] != asked[1]  # after 2 of warm-up: 2 to 5, 6 to 9
    assert len({*asked[0], *asked[1]}) == 8
    assert asked[2] == [f"bench-0-{number}" for number in range(4)]


async def test_a_start_is_a_unit_where_the_arms_need_one():
    log: list[str] = []
    measured = await ab.compare(arm(log, "a"), arm(log, "b"), WORKLOAD, ab.Design(3, restart=True, requests=2))
    assert [line for line in log if line.startswith("start")] == [
        "start a", "start b", "start b", "start a", "start a", "start b",
    ]  # fmt: skip
    assert [(block.unit, block.a_first) for block in measured.blocks] == [
        (0, True), (0, False), (1, True), (1, False), (2, True), (2, False),
    ]  # fmt: skip


async def test_quality_is_asked_while_both_are_up():
    log: list[str] = []

    async def judge(a, b) -> Verdict:
        log.append("judged")
        return Verdict("pass", "suite.accuracy", "higher", "not worse", 0.0, (-0.01, 0.01), 0.95, "m", "r")

    design = ab.Design(2, restart=True, requests=1)
    measured = await ab.compare(arm(log, "a"), arm(log, "b"), WORKLOAD, design, quality=[judge])
    assert [verdict.metric for verdict in measured.quality] == ["suite.accuracy"]
    assert log[-3] == "judged"
    assert log.count("judged") == 1


async def test_what_an_arm_cannot_do_is_asked_of_neither_and_said_of_both():
    wanted = WORKLOAD.model_copy(update={"ignore_eos": True})
    log: list[str] = []
    measured = await ab.compare(arm(log, "a"), arm(log, "b"), wanted, ab.Design(1, requests=1))
    assert measured.notes["a"] == measured.notes["b"]
    assert set(measured.models) == {"a", "b"}


async def test_an_arm_that_is_not_there_is_named():
    @asynccontextmanager
    async def nothing():
        yield Opened([], [{"engine": "vllm", "reason": "it is not installed", "fix": "install it"}])

    with pytest.raises(NotFound, match="B is not here: it is not installed"):
        await ab.compare(arm([], "a"), nothing, WORKLOAD, ab.Design(1))


def test_a_new_start_is_needed_by_what_is_not_hot():
    base = Profile()
    hot = store.override(base, {"engine.batching.max_step_tokens": 256, "engine.sampling.temperature": 0.5})
    cold = store.override(hot, {"engine.compute.precision": "int8"})
    assert ab.needs_restart(base, base) == []
    assert ab.needs_restart(base, hot) == []
    assert ab.needs_restart(base, cold) == ["engine.compute.precision"]
    other = Profile(engine=schema.FakeEngine())
    assert "engine.kind" in ab.needs_restart(base, other)


@pytest.mark.parametrize(("units", "requests", "words"), [(0, 1, "1 to 10000 blocks"), (1, 0, "needs requests, not 0")])
def test_a_design_of_nothing_is_refused(units, requests, words):
    with pytest.raises(Invalid, match=words):
        ab.Design(units, requests=requests)
