from __future__ import annotations

import pytest

from temper.engines.native.tracer import Tracer, _no_lap
from tests.engines.native.fakes import ask, gather, make_engine


@pytest.fixture
async def engine():
    found, _ = make_engine(max_step_tokens=16)
    await found.start()
    yield found
    await found.stop()


async def test_every_part_of_every_step_is_counted(engine):
    await engine.start_trace()
    await gather(engine, ask("a prompt of thirty-odd letters, so", 5))
    found = await engine.stop_trace()
    # 34 tokens by 16 are 3 steps, the last of which gives the first of 5 tokens.
    assert found.num_steps == 7
    assert (found.prefill_tokens, found.decode_tokens) == (34, 4)
    counts = {part: count for part, (count, _) in found.parts.items()}
    assert {part: counts[part] for part in ("build", "forward", "sample", "publish")} == dict.fromkeys(
        ("build", "forward", "sample", "publish"), 7
    )
    assert counts["tokenize"] == 1
    assert counts["detokenize"] >= 5
    assert counts["schedule"] >= 7
    assert found.parts["detokenize"][1] <= found.parts["publish"][1]
    tokens = [(step["prefill_tokens"], step["decode_tokens"]) for step in found.steps]
    assert tokens == [(16, 0), (16, 0), (2, 0), (0, 1), (0, 1), (0, 1), (0, 1)]
    began = [step["began_s"] for step in found.steps]
    assert began == sorted(began)
    assert found.ops is None  # the fake executor has none
    assert found.window_s >= sum(step["forward"] for step in found.steps)


async def test_a_trace_begins_anew(engine):
    await engine.start_trace()
    await gather(engine, ask("x", 3))
    await engine.start_trace()
    await gather(engine, ask("y", 2))
    assert (await engine.stop_trace()).num_steps == 2
    await gather(engine, ask("z", 2))
    await engine.start_trace()
    assert "forward" not in (await engine.stop_trace()).parts


async def test_nothing_stands_in_the_way_while_it_is_off(engine):
    tracer = Tracer()
    assert tracer.begin() is _no_lap
    assert tracer.timed("tokenize", len) is len
    model = engine._model
    assert tracer.watch(model) is model
