"""Running an app on a port until somebody ends it: binding, warnings, and a graceful drain."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from temper.errors import Invalid
from temper.server.state import Served

log = logging.getLogger(__name__)

LAST_MOMENT_S = 5.0
"""For connections to close after the drain; those that do not are cut."""
IDLE_CONNECTION_S = 75


def serve(
    app: FastAPI,
    host: str = "127.0.0.1",
    port: int = 8000,
    drain_s: float = 30.0,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve `app` until SIGTERM or SIGINT, then drain: `/ready` goes red, new requests get 503, open
    ones may take `drain_s` seconds to end. A second signal ends it at once. A signal that comes while engines still
    start ends what they have started. SIGHUP reads the profile again.

    `port` 0 takes a free one. `on_ready` is told the URL once requests are taken.

    Raises:
        Invalid: the address cannot be bound.
        TemperError: an engine could not start.
    """
    listener = bind(host, port)
    state: Served = app.state.temper
    if not _is_loopback(host) and not state.settings.api_keys:
        log.warning(
            "LISTENING ON %s WITHOUT AN API KEY: everyone who reaches this machine can use this server. "
            "Set API keys, or bind 127.0.0.1.",
            host,
        )
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=IDLE_CONNECTION_S,
        timeout_graceful_shutdown=int(LAST_MOMENT_S),
    )
    name = f"[{host}]" if ":" in host else host
    server = _Server(config, state, drain_s, f"http://{name}:{listener.getsockname()[1]}", on_ready)
    with listener, _quiet_failure(state), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        try:
            runner.run(server.serve(sockets=[listener]))
        except SystemExit:  # how uvicorn says that the app did not start
            if state.failure is None:
                raise
    if state.failure is not None and not state.given_up:
        raise state.failure


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address and not yet listening, so that nobody waits on a server that loads.

    Raises:
        Invalid: the port is taken or not allowed, or the host is not this machine's.
    """
    if not 0 <= port <= 65535:
        raise Invalid(f"port {port} does not exist", param="port", hint="ports are 0 to 65535; 0 takes a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Invalid(f"the host '{host}' is not known: {error}", param="host") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Invalid(
                f"port {port} on {host} is taken by another program", param="port", hint="choose another"
            ) from None
        raise Invalid(f"cannot listen on {host}:{port}: {error}", param="port") from None
    return listener


@contextmanager
def _quiet_failure(state: Served) -> Iterator[None]:
    """Why an engine could not start is raised, and need not be logged with a traceback before."""

    def keep(record: logging.LogRecord) -> bool:
        return state.failure is None

    theirs = logging.getLogger("uvicorn.error")
    theirs.addFilter(keep)
    try:
        yield
    finally:
        theirs.removeFilter(keep)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(uvicorn.Server):
    """Uvicorn, with a drain between the signal and the shutdown."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: Served,
        drain_s: float,
        url: str,
        on_ready: Callable[[str], None] | None,
    ) -> None:
        super().__init__(config)
        self._state = state
        self._drain_s = drain_s
        self._url = url
        self._on_ready = on_ready
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reloads: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self._state.reread is not None and hasattr(signal, "SIGHUP"):
            self._loop.add_signal_handler(signal.SIGHUP, self._begin_reload)
        if self.started and self._on_ready is not None:
            self._on_ready(self._url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends at once. Called between any two bytecodes."""
        if self._loop is None or not self.started or self._state.draining:
            self.should_exit = self.force_exit = True
            if self._loop is not None and not self.started:
                log.info("%s: the engines start no further", signal.Signals(sig).name)
                self._loop.call_soon_threadsafe(self._state.give_up)
            return
        self._state.draining = True
        log.info("%s: draining for up to %g s", signal.Signals(sig).name, self._drain_s)
        self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._state.reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    def _begin_drain(self) -> None:
        self._drain = asyncio.get_running_loop().create_task(self._drain_then_exit())

    async def _drain_then_exit(self) -> None:
        if not await self._state.drained(self._drain_s):
            log.warning("%d requests are still open after %g s: cut", self._state.num_open, self._drain_s)
            await self._state.stop()
            await self._state.drained(LAST_MOMENT_S)
        self.should_exit = True
