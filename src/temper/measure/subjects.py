"""Who is measured: an engine in this process, a server at a URL, or several servers started side by side.

Opens and closes what `bench` measures. Servers of other makes are `peers`' knowledge.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temper.engines.base import Engine
from temper.engines.openai import Endpoint, OpenAIEngine
from temper.errors import NotFound, TemperError
from temper.measure import bench, peers
from temper.measure.memory import family, server_pids
from temper.measure.quality import perplexity
from temper.measure.workload.schema import Workload
from temper.profile import schema
from temper.profile.schema import Profile


@dataclass(slots=True)
class Opened:
    """What can be measured now, and what cannot and why."""

    subjects: list[bench.Subject]
    missing: list[dict[str, str]] = field(default_factory=list)


async def measure(
    opening: AbstractAsyncContextManager[Opened],
    variants: Sequence[Workload],
    rounds: int,
    num_processes: int,
    tell: bench.Tell,
) -> dict[str, Any]:
    """Open, measure, close. The result is `bench.bench`'s, with `missing` and each engine's `quality`.

    Raises:
        TemperError: nothing could be opened, or nothing answers.
    """
    async with opening as opened:
        if not opened.subjects:
            reasons = "; ".join(f"{entry['engine']}: {entry['reason']}" for entry in opened.missing)
            raise NotFound(f"none of the engines is here: {reasons}", param="engines", hint=opened.missing[0]["fix"])
        found = await bench.bench(opened.subjects, variants, rounds=rounds, num_processes=num_processes, tell=tell)
        quality = {subject.name: subject.quality for subject in opened.subjects if subject.quality is not None}
        return {**found, "missing": opened.missing, "quality": quality}


@asynccontextmanager
async def in_process(engine: Engine) -> AsyncIterator[Opened]:
    """An engine of our own, started and stopped here."""
    before = set(family((os.getpid(),)))
    await engine.start()
    try:
        workers = tuple(pid for pid in family((os.getpid(),)) if pid not in before)
        subject = bench.Subject(engine.name, engine, workers or (os.getpid(),))
        if not workers:
            subject.notes.append("the engine shares its process with the load generator: rss_bytes holds both")
        yield Opened([subject])
    finally:
        await engine.stop()


@asynccontextmanager
async def at_url(url: str, model: str | None, api_key: str | None) -> AsyncIterator[Opened]:
    """The server at a URL."""
    subject = remote(Endpoint(url, api_key), model)
    await subject.engine.start()
    try:
        subject.pids = server_pids(url)
        subject.name = str(subject.engine.stats().details["dialect"])
        yield Opened([subject])
    finally:
        await subject.engine.stop()


def remote(endpoint: Endpoint, model: str | None, name: str = "openai") -> bench.Subject:
    """A subject for a server, not started. No request is repeated: a failure must count."""
    config = schema.OpenAIEngine(model=model, retries=0, health_every_s=None)
    return bench.Subject(name, OpenAIEngine(config, endpoint=endpoint), remote=(config, endpoint))


@asynccontextmanager
async def side_by_side(
    names: Sequence[str],
    profile: Profile,
    folder: Path,
    fetch: Callable[[str], Path],
    most_streams: int = peers.MOST_STREAMS,
) -> AsyncIterator[Opened]:
    """Several engines on the same weights, each as a server of its own, all spoken to over HTTP.

    All stay up for the whole comparison, so that they can take turns. One that is not installed or does not
    start is `missing`, with the reason and what would set it up.

    Raises:
        NotFound: a name that no peer has.
    """
    wanted = [peers.find(name) for name in names]
    opened = Opened([])
    async with AsyncExitStack() as stack:
        place = peers.Place(folder, profile, fetch, stack.enter_context(peers.scratch()), most_streams)
        for peer in wanted:
            try:
                server = await stack.enter_async_context(peers.launched(peer, place))
                subject = remote(Endpoint(server.url), None, peer.name)
                await subject.engine.start()
            except (peers.Missing, TemperError) as error:
                opened.missing.append({"engine": peer.name, "reason": str(error), "fix": peer.fix(folder)})
                continue
            stack.push_async_callback(subject.engine.stop)
            subject.pids = (server.pid,)
            subject.notes += peer.notes
            subject.quality = await _quality(peer, place, subject.engine)
            opened.subjects.append(subject)
        yield opened


async def _quality(peer: peers.Peer, place: peers.Place, engine: Engine) -> dict[str, Any]:
    """How well an engine predicts our text: `perplexity`, or why it cannot be told."""
    try:
        if peer.perplexity is not None:
            value = await asyncio.to_thread(peer.perplexity, place)
        else:
            value = await perplexity.perplexity(engine, perplexity.corpus())
    except (peers.Missing, TemperError) as error:
        return {"perplexity": None, "reason": str(error)}
    return {"perplexity": round(value, 4), "protocol": perplexity.PROTOCOL}
