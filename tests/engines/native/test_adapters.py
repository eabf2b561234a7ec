"""Adapters in the native engine: which request gets which, what may be loaded, and that nothing is lost by changes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from temper.engines.context import Context
from temper.engines.native.engine import NativeEngine
from temper.engines.native.remote import WorkerEngine
from temper.errors import CheckpointError, EngineFailure, Invalid, NotFound, TemperError, Unsupported
from temper.profile.schema import AdapterLimits, Profile
from temper.profile.schema import NativeEngine as NativeSection
from temper.types import Delta, Message, Started
from tests.engines.native.adapting import AdaptingExecutor, adapting_engine, write
from tests.engines.native.fakes import Answer, ask, gather, make_engine
from tests.engines.native.test_remote import _importable_fakes as _importable_fakes
from tests.engines.native.test_remote import until

PROMPT = "a prompt of more than one block, so that the cache has something to keep"


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[NativeEngine, AdaptingExecutor]]:
    """An engine with the adapters `one` and `two`."""
    folders = {name: write(tmp_path / name, name) for name in ("one", "two")}
    engine, executor = adapting_engine(adapters=folders, num_blocks=128)
    await engine.start()
    yield engine, executor
    await engine.stop()


async def text(engine, adapter: str | None = None, prompt: str = PROMPT, **fields) -> str:
    return (await gather(engine, ask(prompt, adapter=adapter, **fields))).text()


async def long(engine, adapter: str, first: asyncio.Event, tokens: int = 300) -> Answer:
    """A long answer that tells when it has begun."""
    events = []
    async for event in engine.generate(ask(PROMPT, tokens, adapter=adapter)):
        events.append(event)
        if isinstance(event, Delta):
            first.set()
    return Answer(events)


# -- requests --------------------------------------------------------------------------------------


async def test_requests_choose_their_adapter_and_share_steps(pair):
    engine, executor = pair
    names = [None, "one", "two", "two", None, "one", "two", None]
    alone = {name: await text(engine, name, max_tokens=40) for name in (None, "one", "two")}
    assert len(set(alone.values())) == 3
    together = await asyncio.gather(*(text(engine, name, max_tokens=40) for name in names))
    assert together == [alone[name] for name in names]
    assert executor.mixed > 10


async def test_who_answered_is_told(pair):
    engine, _ = pair
    can = engine.capabilities()
    assert can.adapters == ("one", "two")
    assert len(set(can.adapter_versions)) == 2
    made = (await gather(engine, ask(adapter="two"))).done.made_by
    assert made.adapter == f"two@{can.adapter_versions[1][:12]}"
    assert (await gather(engine, ask())).done.made_by.adapter is None
    figures = engine.stats().details["adapters"]
    assert figures["loaded"]["one"]["running"] == 0
    assert figures["bytes"] == 2000


async def test_an_adapter_is_asked_by_its_own_template(tmp_path: Path):
    engine, _ = adapting_engine(adapters={name: write(tmp_path / name, name) for name in ("plain", "thinks")})
    await engine.start()
    messages = (Message("user", "hello"),)
    channels = {}
    for adapter in (None, "plain", "thinks"):
        found = await gather(engine, ask(messages=messages, adapter=adapter))
        channels[adapter] = {event.channel for event in found.events if isinstance(event, Delta)}
    assert channels == {None: {"answer"}, "plain": {"answer"}, "thinks": {"reasoning"}}
    await engine.stop()


async def test_unknown_adapters_are_refused_by_name(pair):
    engine, _ = pair
    with pytest.raises(NotFound, match="no adapter 'three'") as caught:
        await gather(engine, ask(adapter="three"))
    assert caught.value.param == "adapter"
    assert "one, two" in str(caught.value)


async def test_an_engine_that_takes_none_says_so(tmp_path: Path):
    engine, _ = make_engine()
    await engine.start()
    for refused in (gather(engine, ask(adapter="one")), engine.load_adapter("one", write(tmp_path / "one", "one"))):
        with pytest.raises(Unsupported, match="capability 'adapters'"):
            await refused
    await engine.stop()
    declared, _ = make_engine(adapters={"one": str(tmp_path / "one")})
    with pytest.raises(Unsupported, match="capability 'adapters'"):
        await declared.start()


async def test_samples_echo_and_preemption_keep_the_adapter(tmp_path: Path):
    """Few blocks: sequences are preempted and computed again, still with theirs."""
    folders = {name: write(tmp_path / name, name) for name in ("one", "two")}
    engine, _ = adapting_engine(adapters=folders, num_blocks=24, context_length=256)
    await engine.start()
    alone = {name: await text(engine, name, max_tokens=90) for name in (None, "one", "two")}
    names = [None, "one", "two"] * 3
    together = await asyncio.gather(*(text(engine, name, max_tokens=90) for name in names))
    assert together == [alone[name] for name in names]
    assert engine.stats().preemptions_total > 0
    found = await gather(engine, ask("x", 6, adapter="one", n=2, echo=True, logprobs=1))
    assert found.done.usage.completion_tokens == 12
    await engine.stop()


# -- the prefix cache ------------------------------------------------------------------------------


async def cached(engine, adapter: str | None) -> int:
    started = next(e for e in (await gather(engine, ask(PROMPT, adapter=adapter))).events if isinstance(e, Started))
    return started.cached_tokens


async def test_each_adapter_has_its_own_prefixes(pair):
    engine, _ = pair
    for name in (None, "one", "two"):
        assert await cached(engine, name) == 0
        assert await cached(engine, name) == 64


async def test_a_reloaded_adapter_never_gives_the_old_ones_text(pair, tmp_path: Path):
    """vLLM #42125: cached blocks are keyed by what the adapter is, not by what it is called."""
    engine, _ = pair
    before = await text(engine, "one")
    assert await cached(engine, "one") == 64
    await engine.load_adapter("one", write(tmp_path / "one", "another"), replace=True)
    assert await cached(engine, "one") == 0
    after = await text(engine, "one")
    assert after != before
    await engine.unload_adapter("one")
    await engine.load_adapter("one", write(tmp_path / "one", "one"))
    assert await text(engine, "one") == before
    await engine.load_adapter("alias", write(tmp_path / "copy", "one"))
    assert await cached(engine, "alias") == 64  # the same content under another name is the same
    assert await text(engine, "alias") == before


# -- loading and unloading -------------------------------------------------------------------------


async def test_loading_disturbs_nobody(tmp_path: Path):
    engine, _ = adapting_engine(step_s=0.001, num_blocks=256, context_length=1024)
    await engine.start()
    await engine.load_adapter("one", write(tmp_path / "one", "one"))
    expected = {name: await text(engine, name, max_tokens=120) for name in (None, "one")}
    names = [None, "one"] * 4
    streams = [asyncio.create_task(text(engine, name, max_tokens=120)) for name in names]
    for i in range(8):
        await engine.load_adapter(f"hot-{i}", write(tmp_path / f"hot-{i}", f"hot {i}"))
        assert await text(engine, f"hot-{i}", max_tokens=3)
        if i % 2:
            await engine.unload_adapter(f"hot-{i}")
    assert await asyncio.gather(*streams) == [expected[name] for name in names]
    assert engine.capabilities().adapters == ("one", "hot-0", "hot-2", "hot-4", "hot-6")
    await engine.stop()


async def test_unloading_waits_for_who_has_it(tmp_path: Path):
    engine, executor = adapting_engine(step_s=0.001, num_blocks=256, context_length=1024)
    await engine.start()
    await engine.load_adapter("one", write(tmp_path / "one", "one"))
    expected = await text(engine, "one", max_tokens=300)
    first = asyncio.Event()
    stream = asyncio.create_task(long(engine, "one", first))
    await first.wait()
    unloading = asyncio.create_task(engine.unload_adapter("one"))
    await asyncio.sleep(0.02)
    assert not unloading.done()
    with pytest.raises(NotFound):
        await text(engine, "one")
    with pytest.raises(NotFound):
        await engine.unload_adapter("one")
    assert engine.stats().details["adapters"]["leaving"] == 1
    assert (await stream).text() == expected
    await unloading
    assert executor.attached == {}
    assert engine.stats().details["adapters"] == {"loaded": {}, "leaving": 0, "bytes": 0}
    await engine.stop()


async def test_who_runs_ends_with_the_adapter_that_it_began_with(tmp_path: Path):
    engine, executor = adapting_engine(step_s=0.001, num_blocks=256, context_length=1024)
    await engine.start()
    await engine.load_adapter("one", write(tmp_path / "one", "one"))
    expected = await text(engine, "one", max_tokens=300)
    first = asyncio.Event()
    stream = asyncio.create_task(long(engine, "one", first))
    await first.wait()
    await engine.load_adapter("one", write(tmp_path / "one", "another"), replace=True)
    assert len(executor.attached) == 2
    changed = await text(engine, "one", max_tokens=300)
    assert changed != expected
    assert (await stream).text() == expected
    await until(lambda: len(executor.attached) == 1)
    await engine.stop()


async def test_an_adapter_that_is_unloaded_while_its_successor_is_read_goes_once(tmp_path: Path):
    engine, executor = adapting_engine()
    await engine.start()
    sources = [write(tmp_path / str(i), f"content {i}") for i in range(6)]
    await engine.load_adapter("one", sources[0])
    for i in range(1, 6):
        replacing = asyncio.create_task(engine.load_adapter("one", sources[i], replace=True))
        await asyncio.sleep(0)
        await engine.unload_adapter("one")
        await replacing
        assert engine.capabilities().adapters == ("one",)
        await engine.load_adapter("two", sources[i - 1])
        assert await text(engine, "one") != await text(engine, "two")
        await engine.unload_adapter("two")
        assert len(executor.attached) == 1
    await engine.unload_adapter("one")
    assert executor.attached == {}
    await engine.stop()


async def test_who_gives_up_loading_leaves_nothing_behind(tmp_path: Path):
    """Cancelled at any moment: requests that run go on, and the executor holds what has a name, no more."""
    engine, executor = adapting_engine(step_s=0.003, num_blocks=256, context_length=1024)
    await engine.start()
    source = write(tmp_path / "one", "one")
    stream = asyncio.create_task(text(engine, max_tokens=200))
    for i in range(12):
        loading = asyncio.create_task(engine.load_adapter(f"hot-{i}", source))
        await asyncio.sleep(0.001 * i)
        loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)
    assert len(await stream) == 200
    await until(lambda: len(executor.attached) == len(engine.capabilities().adapters))
    for name in engine.capabilities().adapters:
        await engine.unload_adapter(name)
    assert executor.attached == {}
    await engine.stop()


async def unloading_under_a_stream(tmp_path: Path):
    """(engine, executor, stream, unloading): an adapter that is asked to leave while a stream still needs it."""
    engine, executor = adapting_engine(step_s=0.001, num_blocks=256, context_length=1024)
    await engine.start()
    await engine.load_adapter("one", write(tmp_path / "one", "one"))
    first = asyncio.Event()
    stream = asyncio.create_task(long(engine, "one", first))
    await first.wait()
    unloading = asyncio.create_task(engine.unload_adapter("one"))
    await asyncio.sleep(0.01)
    return engine, executor, stream, unloading


async def test_a_cancelled_request_lets_its_adapter_go(tmp_path: Path):
    engine, executor, stream, unloading = await unloading_under_a_stream(tmp_path)
    stream.cancel()
    await asyncio.wait_for(unloading, 5)
    assert executor.attached == {}
    await engine.load_adapter("two", write(tmp_path / "two", "two"))
    with pytest.raises(Invalid):  # refused after it was taken: given back too
        await gather(engine, ask(adapter="two", n=99))
    await asyncio.wait_for(engine.unload_adapter("two"), 5)
    await engine.stop()


async def test_a_stop_ends_the_waiting(tmp_path: Path):
    engine, _, stream, unloading = await unloading_under_a_stream(tmp_path)
    await engine.stop()
    await asyncio.wait_for(unloading, 5)
    assert isinstance((await stream).failed.error, EngineFailure)


async def test_what_may_be_loaded_is_bounded(tmp_path: Path):
    engine, executor = adapting_engine(lora=AdapterLimits(max_loaded=3, max_rank=10, max_total_bytes=2500))
    await engine.start()
    one = write(tmp_path / "one", "one")
    for name in ("", "x" * 257, "fake"):
        with pytest.raises(Invalid, match="name") as caught:
            await engine.load_adapter(name, one)
        assert caught.value.param == "lora_name"
    await engine.load_adapter("one", one)
    with pytest.raises(Invalid, match="loaded already"):
        await engine.load_adapter("one", one)
    refused: tuple[tuple[str, type[TemperError], str], ...] = (
        ("nowhere", NotFound, "no adapter folder"),
        ("broken", CheckpointError, "broken"),
        ("wrong", CheckpointError, "does not fit the model"),
        ("of too high a rank", CheckpointError, "at most 10"),
    )
    for content, kind, words in refused:
        source = str(tmp_path / "nowhere") if content == "nowhere" else write(tmp_path / "x", content)
        with pytest.raises(kind, match=words):
            await engine.load_adapter("x", source)
        with pytest.raises(kind, match=words):
            await engine.load_adapter("one", source, replace=True)
    await engine.load_adapter("two", one)
    with pytest.raises(CheckpointError, match="max_total_bytes"):
        await engine.load_adapter("three", one)
    engine._adapters.limits = AdapterLimits(max_loaded=2)
    with pytest.raises(Invalid, match="max_loaded is 2"):
        await engine.load_adapter("three", one)
    assert engine.capabilities().adapters == ("one", "two")
    assert len(executor.attached) == 2
    await engine.stop()


async def test_a_profile_whose_adapter_is_not_there_does_not_start(tmp_path: Path):
    engine, _ = adapting_engine(adapters={"one": write(tmp_path / "one", "one"), "two": str(tmp_path / "two")})
    with pytest.raises(NotFound, match="no adapter folder"):
        await engine.start()
    assert not engine.health().ready
    write(tmp_path / "two", "two")
    await engine.start()
    assert engine.capabilities().adapters == ("one", "two")
    await engine.stop()


async def test_another_profile_changes_adapters_without_a_restart(pair, tmp_path: Path):
    engine, executor = pair
    section = engine._section
    folders = {"two": section.adapters["two"], "three": write(tmp_path / "three", "three")}
    assert await engine.apply(Profile(engine=section.model_copy(update={"adapters": folders})))
    assert engine.capabilities().adapters == ("two", "three")
    await until(lambda: len(executor.attached) == 2)
    gone = {"four": str(tmp_path / "nowhere")}
    with pytest.raises(NotFound):
        await engine.apply(Profile(engine=section.model_copy(update={"adapters": gone})))
    assert engine.capabilities().adapters == ("two", "three")


# -- behind a worker -------------------------------------------------------------------------------


def behind_a_worker(tmp_path: Path, **fields: object) -> WorkerEngine:
    opener = "tests.engines.native.adapting:open_adapting"
    return WorkerEngine(NativeSection(**fields), Context(cache_dir=tmp_path, home=tmp_path), opener=opener)  # type: ignore[arg-type]


async def test_a_worker_passes_adapters_on_and_a_new_one_loads_them_again(tmp_path: Path):
    engine = behind_a_worker(tmp_path, adapters={"one": write(tmp_path / "one", "one")})
    await engine.start()
    assert engine.capabilities().adapters == ("one",)
    await engine.load_adapter("two", write(tmp_path / "two", "two"))
    await engine.load_adapter("three", write(tmp_path / "three", "three"))
    assert engine.capabilities().adapters == ("one", "two", "three")
    with pytest.raises(NotFound, match="no adapter 'four'"):
        await text(engine, "four")
    with pytest.raises(CheckpointError, match="broken") as caught:
        await engine.load_adapter("four", write(tmp_path / "four", "broken"))
    assert caught.value.hint == "mend it"
    expected = [await text(engine, name) for name in (None, "one", "two")]
    assert len(set(expected)) == 3
    await engine.unload_adapter("one")
    assert engine.capabilities().adapters == ("two", "three")
    (tmp_path / "three" / "text").unlink()
    assert engine._process is not None
    os.kill(engine._process.pid, signal.SIGKILL)
    await until(lambda: not engine.health().ready)
    await until(lambda: engine.health().ready)
    assert engine.capabilities().adapters == ("two",)  # one was unloaded, three is gone
    assert await text(engine, "two") == expected[2]
    await engine.stop()


async def test_a_worker_changes_adapters_with_the_profile(tmp_path: Path):
    engine = behind_a_worker(tmp_path, adapters={"one": write(tmp_path / "one", "one")})
    with pytest.raises(NotFound):
        await behind_a_worker(tmp_path, adapters={"one": str(tmp_path / "nowhere")}).start()
    await engine.start()
    await engine.load_adapter("hot", write(tmp_path / "hot", "hot"))
    section = NativeSection(adapters={"two": write(tmp_path / "two", "two")})
    assert await engine.apply(Profile(engine=section))
    assert engine.capabilities().adapters == ("hot", "two")
    assert await text(engine, "two") != await text(engine, "hot")
    await engine.stop()
