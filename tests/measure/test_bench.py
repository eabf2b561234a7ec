from __future__ import annotations

import json

import pytest

from temper.engines.fake import FakeEngine
from temper.errors import Unsupported
from temper.measure.bench import Subject, bench, figure, ratios
from temper.measure.page import page
from temper.measure.workload.options import Load
from temper.profile import schema
from tests.measure.virtual import PacedEngine


async def fake(name="fake", **config):
    engine = FakeEngine(schema.FakeEngine(script="words", **config))
    await engine.start()
    return Subject(name, engine)


def load(**given):
    return Load(
        **{"requests": 8, "input_tokens": 6, "output_tokens": 5, "warmup": 2, "concurrency": (4,), **given}
    ).variants()


async def test_one_engine_under_several_loads():
    found = await bench([await fake()], load(concurrency=(1, 4)))
    assert [run["concurrency"] for run in found["runs"]] == [1, 4]
    for run in found["runs"]:
        assert (run["requests"], run["completed"], run["output_tokens"], run["prompt_tokens"]) == (8, 8, 40, 48)
        assert run["failures"] == {}
        assert run["cached_tokens"] == 0
    assert found["prompts"] == "token ids"
    assert found["ratios"] == []
    assert json.loads(json.dumps(found, allow_nan=False)) == found


async def test_an_open_loop_names_its_rate():
    (run,) = (await bench([await fake()], load(concurrency=(), rate=(200.0,))))["runs"]
    assert run["rate"] == 200.0
    assert "concurrency" not in run
    assert run["completed"] == 8
    assert run["generator"]["send_late_p99_ms"] is not None


async def test_several_engines_take_turns_on_the_same_prompts():
    a, b = Subject("a", PacedEngine(0.002, 0.001)), Subject("b", PacedEngine(0.002, 0.001))
    found = await bench([a, b], load(requests=3, warmup=1), rounds=4)
    assert [run["engine"] for run in found["runs"]] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    prompts = [[request.prompt for _, request in subject.engine.seen] for subject in (a, b)]
    assert sorted(prompts[0]) == sorted(prompts[1])
    assert len(set(prompts[0])) == 1 + 1 + 4 * 3  # the probe, the warm-up, and three new ones in each round
    assert found["prompts"] == "words"
    metrics = [ratio["metric"] for ratio in found["ratios"]]
    assert metrics[:2] == ["output_tokens_per_s", "prefill_tokens_per_s"]


def test_ratios_compare_round_by_round_with_the_first():
    def run(engine, number, speed, ttft):
        return {
            "engine": engine,
            "round": number,
            "concurrency": 4,
            "output_tokens_per_s": speed,
            "ttft_ms": {"p50": ttft},
        }

    runs = [run("a", n, 100 + n, 10.0) for n in range(3)] + [run("b", n, 2 * (100 + n), None) for n in range(3)]
    (found,) = ratios(["a", "b"], runs)
    assert (found["engine"], found["against"], found["metric"], found["better"]) == (
        "b",
        "a",
        "output_tokens_per_s",
        "higher",
    )
    assert found["median"] == pytest.approx(2)
    assert found["effect"] == pytest.approx(1)
    assert found["rounds"] == 3
    assert figure(runs[0], "ttft_ms.p50") == 10.0
    assert figure(runs[0], "itl_ms.p50") is None


async def test_what_an_engine_cannot_take_is_left_out_for_all_and_noted():
    class Plain(PacedEngine):
        async def generate(self, request):
            if request.stop.ignore_eos:
                raise Unsupported("no", param="ignore_eos")
            if request.messages is None:
                raise Unsupported("chats alone", param="prompt")
            async for event in super().generate(request):
                yield event

    plain, other = Subject("plain", Plain(0.001, 0.0)), Subject("other", PacedEngine(0.001, 0.0))
    found = await bench([plain, other], load())
    for run in found["runs"]:
        assert run["failures"] == {}
        assert any("end where the model ends them" in note for note in run["notes"])
        assert any("sent as chats" in note for note in run["notes"])
    assert not any(request.stop.ignore_eos for _, request in other.engine.seen)


async def test_an_engine_that_refuses_everything_is_told_before_the_load():
    class Refusing(PacedEngine):
        async def generate(self, request):
            raise Unsupported("never", param="temperature")
            yield

    with pytest.raises(Unsupported, match="never"):
        await bench([Subject("refusing", Refusing(0, 0))], load())


async def test_a_prompt_seen_before_is_noted():
    subject = await fake()
    await bench([subject], load(input_tokens=40))
    (run,) = (await bench([subject], load(input_tokens=40)))["runs"]
    assert run["cached_tokens"] > 0
    assert any("take another --seed" in note for note in run["notes"])


async def test_the_page_holds_everything_and_loads_nothing():
    found = await bench([await fake("<b>&"), await fake("two", itl_ms=1)], load(concurrency=(1, 2)), rounds=2)
    text = page({**found, "missing": [{"engine": "vllm", "reason": "not <there>", "fix": "x"}], "quality": {}})
    assert text.count("<svg") == 5
    assert "&lt;b&gt;&amp;" in text
    assert "<b>&" not in text
    assert "missing: vllm: not &lt;there&gt;" in text
    assert "Time to first token" in text
    for word in ("<script", "http://", "https://", "src=", "url("):
        assert word not in text
    assert "NaN" not in text
