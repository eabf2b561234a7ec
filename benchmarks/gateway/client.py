"""An open loop of chat requests whose client costs next to nothing, as the mock upstream does.

No task and no wake-up a piece: what a chunk means is decided where it arrives. The load shares the machine's cores with
the gateway under test, and what it spends is missing there.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httptools
from gateway.upstream import CHUNKS

clock = time.perf_counter
"""Not the loop's: uvloop's has a grain of 1 ms, as wide as the goal."""
LATE_S = 10.0
"""After the last request was due, nobody waits longer than this for answers."""


@dataclass
class Run:
    """One arm for some seconds."""

    first_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)
    failures: int = 0
    cpu_ms_per_request: float = 0.0


class _Exchange(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._transport: Any = None
        self.is_open = False
        self._begin(0.0)

    def _begin(self, due: float) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._due, self._first, self._words, self._tail = due, 0.0, 0, b""

    def ask(self, message: bytes, due: float) -> None:
        """Send a request that was due at `due`."""
        self._begin(due)
        self.is_open = True
        self._transport.write(message)

    def close(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end(is_whole=False, is_reusable=False)
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._load.idle = [kept for kept in self._load.idle if kept is not self]
        self._end(is_whole=False, is_reusable=False)

    def on_body(self, data: bytes) -> None:
        if not self._first and (not self._load.streams or b"word" in data):
            self._first = clock()
        self._words += data.count(b"word")
        self._tail = data

    def on_message_complete(self) -> None:
        is_done = not self._load.streams or self._tail.rstrip().endswith(b"[DONE]")
        is_whole = self._parser.get_status_code() == 200 and self._words == CHUNKS - 1 and is_done
        self._end(is_whole=is_whole, is_reusable=self._parser.should_keep_alive())

    def _end(self, *, is_whole: bool, is_reusable: bool) -> None:
        if not self.is_open:
            return
        self.is_open = False
        run, now = self._load.run, clock()
        if is_whole and self._first:
            run.first_ms.append((self._first - self._due) * 1000)
            run.total_ms.append((now - self._due) * 1000)
        else:
            run.failures += 1
        self._load.ended(self if is_reusable else None)


class _Load:
    """The requests of one run and the connections they use."""

    def __init__(self, url: str, *, streams: bool, message: bytes) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._message = message
        self.streams = streams
        self.run = Run()
        self.idle: list[_Exchange] = []
        self.num_open = 0
        self._exchanges: list[_Exchange] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._nothing_open = asyncio.Event()

    def ask(self, due: float) -> None:
        """Send one more request, over a connection that is idle or a new one."""
        self.num_open += 1
        self._nothing_open.clear()
        if self.idle:
            self.idle.pop().ask(self._message, due)
            return
        task = asyncio.get_running_loop().create_task(self._connect(due))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: _Exchange(self), self._host, self._port)
        except OSError:
            self.run.failures += 1
            self.ended(None)
            return
        self._exchanges.append(made)
        made.ask(self._message, due)

    def ended(self, reusable: _Exchange | None) -> None:
        """A request is over; its connection may carry the next."""
        if reusable is not None:
            self.idle.append(reusable)
        self.num_open -= 1
        if not self.num_open:
            self._nothing_open.set()

    async def finish(self) -> None:
        """Wait for what is open, then hang up; what is later than `LATE_S` has failed."""
        if self.num_open:
            try:
                await asyncio.wait_for(self._nothing_open.wait(), LATE_S)
            except TimeoutError:
                self.run.failures += self.num_open
        for exchange in self._exchanges:
            exchange.is_open = False
            exchange.close()


async def load(url: str, path: str, body: bytes, *, streams: bool, rate: float, seconds: float) -> Run:
    """Requests go out when they are due, whatever became of those before."""
    host = urlsplit(url).netloc
    head = (
        f"POST {urlsplit(url).path}{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    asked = _Load(url, streams=streams, message=head.encode() + body)
    begin = clock() + 0.05
    for number in range(int(rate * seconds)):
        due = begin + number / rate
        while (left := due - clock()) > 0:
            await asyncio.sleep(max(left, 0.001))  # uvloop turns less into nothing, and would spin
        asked.ask(due)
    await asked.finish()
    return asked.run
