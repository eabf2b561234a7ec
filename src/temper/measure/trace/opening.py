"""What is traced, opened and closed: an engine in this process, a server of our own, or one that runs already.

Each comes with a `Switch` that begins and ends the measuring where the work is done. It puts no load on anything.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from temper.engines.base import Engine
from temper.engines.openai import Endpoint
from temper.engines.openai.wire import Wire, WireError
from temper.errors import EngineFailure, TemperError, Unsupported, from_code
from temper.measure import bench, peers, subjects
from temper.profile import store
from temper.profile.schema import Profile

SERVER_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was told of one run, from the inside."""

    engine: Mapping[str, Any] | None = None
    """An `EngineTrace` as plain data."""
    why_no_engine: str = ""
    http_cpu_s: float | None = None
    """CPU time of the API process."""
    why_no_http: str = ""


class Switch(Protocol):
    """Where the measuring is begun and ended."""

    async def start(self) -> None:
        """Measure from now on."""

    async def stop(self) -> Recorded:
        """Measure no more."""


@dataclass(frozen=True, slots=True)
class Traced:
    """Who is asked, and how its own view is had."""

    subject: bench.Subject
    switch: Switch
    is_here: bool = True
    """It runs on this machine, so this machine's limits are its own."""


# -- in this process -----------------------------------------------------------------------------------


@asynccontextmanager
async def in_process(engine: Engine) -> AsyncIterator[Traced]:
    """An engine of our own, without HTTP."""
    async with subjects.in_process(engine) as opened:
        yield Traced(opened.subjects[0], EngineSwitch(engine))


class EngineSwitch:
    """Begins and ends the tracing of an engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def start(self) -> None:
        """Start, where the engine can."""
        if self._engine.capabilities().trace:
            await self._engine.start_trace()

    async def stop(self) -> Recorded:
        """What the engine told."""
        why_no_http = "the engine was asked in this process"
        if not self._engine.capabilities().trace:
            name = self._engine.name
            return Recorded(None, f"engine '{name}' does not tell where its own time goes", None, why_no_http)
        return Recorded(asdict(await self._engine.stop_trace()), "", None, why_no_http)


# -- over HTTP -----------------------------------------------------------------------------------------


@asynccontextmanager
async def own_server(profile: Profile, api_key: str | None, home: Path) -> AsyncIterator[Traced]:
    """`temper serve` on the profile as a child, with an admin key that only we know.

    Raises:
        EngineFailure: it does not start.
    """
    admin_key = secrets.token_urlsafe(24)

    def command(place: peers.Place, port: int) -> list[str]:
        file, keys = place.scratch / "profile.toml", place.scratch / "admin-key"
        store.save(profile, file)
        keys.touch(0o600)
        keys.write_text(admin_key + "\n")
        return [sys.executable, "-m", "temper.cli", "serve", str(file), "--port", str(port),
                "--admin-key-file", str(keys), "--home", str(home)]  # fmt: skip

    with peers.scratch() as scratch:
        place = peers.Place(scratch, profile, Path, scratch)
        peer = peers.Peer("temper", None, command, "//ready")
        try:
            async with peers.launched(peer, place) as server, at_url(server.url, None, api_key, admin_key) as traced:
                yield traced
        except peers.Missing as missing:
            raise EngineFailure(f"the server to trace is not there: {missing}") from None


@asynccontextmanager
async def at_url(url: str, model: str | None, api_key: str | None, admin_key: str | None) -> AsyncIterator[Traced]:
    """A server that runs. With an admin key a Temper tells all; any other only what its answers tell."""
    async with subjects.at_url(url, model, api_key) as opened:
        subject = opened.subjects[0]
        is_here = bool(subject.pids)
        endpoint = Endpoint(url, api_key)
        if admin_key is None:
            why = "the server tells it to nobody without its admin key (TEMPER_ADMIN_KEY), and other servers never do"
            yield Traced(subject, NoSwitch(why), is_here)
            return
        switch = ServerSwitch(endpoint.url, admin_key, subject.engine.capabilities().model)
        try:
            yield Traced(subject, switch, is_here)
        finally:
            switch.close()


class NoSwitch:
    """For a server whose inside is not told."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def start(self) -> None:
        """Nothing can be begun."""

    async def stop(self) -> Recorded:
        """Nothing, and why."""
        return Recorded(None, self._why, None, self._why)


class ServerSwitch:
    """Begins and ends the tracing of a Temper server by its admin call."""

    def __init__(self, url: str, admin_key: str, model: str) -> None:
        self._wire = Wire(url, connect_timeout_s=5.0, headers={"authorization": f"Bearer {admin_key}"})
        self._model = model

    async def start(self) -> None:
        """Start; raises what the server says against it."""
        await self._post(on=True)

    async def stop(self) -> Recorded:
        """What the server and its engine told."""
        found = await self._post(on=False)
        told = found["models"][self._model]
        return Recorded(told["trace"], told["reason"], found["http_cpu_s"], "")

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()

    async def _post(self, *, on: bool) -> dict[str, Any]:
        body = json.dumps({"on": on}).encode()
        try:
            async with await self._wire.send("POST", "//admin/trace", body, silence_s=SERVER_TIMEOUT_S) as response:
                content = b"".join([piece async for piece in response])
                status = response.status
        except WireError as error:
            raise EngineFailure(f"the server does not answer the call that traces it: {error}") from None
        try:
            found: dict[str, Any] = json.loads(content)
        except ValueError:
            found = {}
        if status != 200:
            raise _refusal(status, found.get("error") or {})
        return found


def _refusal(status: int, error: Mapping[str, Any]) -> TemperError:
    if status == 404:
        return Unsupported("the server has no call that traces it", hint="it is an older Temper, or none")
    message = f"the server refuses to be traced: {error.get('message', f'HTTP status {status}')}"
    return from_code(str(error.get("code", "engine_failure")), message)
