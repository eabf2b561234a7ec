"""HTTP/1.1 to one server, as little work per piece as asyncio allows: connections kept and used again.

Written because it stands in the path of every token of a load generator and a gateway: httpx takes 100 to 200
microseconds a piece on a 2-core machine, this about a tenth. It follows no redirects, speaks no HTTP/2 and uses no
proxy. It knows bytes; what they mean is the engine's business.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

import httptools

HIGH_WATER_BYTES = 1 << 20
"""Unread bytes after which a server has to wait."""
MAX_HEADER_BYTES = 1 << 16
LINGER_S = 1.0
"""How long the end of an answer is waited for after its content was complete."""
MAX_IDLE = 256
"""Connections kept for later."""


class WireError(Exception):
    """The connection failed. `clean`: nothing had come back, so the request may be sent again."""

    def __init__(self, message: str, *, clean: bool) -> None:
        super().__init__(message)
        self.clean = clean


class WireTimeout(WireError):
    """The server said nothing for too long."""

    def __init__(self, message: str) -> None:
        super().__init__(message, clean=False)


class Response:
    """An answer whose head has come. Iterate for its body; close it in any case."""

    __slots__ = ("_connection", "_is_given_back", "_wire", "headers", "status")

    def __init__(self, wire: Wire, connection: _Connection) -> None:
        self._wire, self._connection = wire, connection
        self._is_given_back = False
        self.status: int = connection.status
        self.headers: dict[str, str] = connection.headers

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes of the body.

        Raises:
            WireError: the connection broke before the body was complete.
        """
        data = await self._connection.read()
        if not data:
            raise StopAsyncIteration
        return data

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([data async for data in self])

    def close(self) -> None:
        """Give the connection back; one with more to come is closed, which tells the server to stop.

        Only once: from then on the connection may carry somebody else's answer.
        """
        if not self._is_given_back:
            self._is_given_back = True
            self._wire.release(self._connection)

    def linger(self) -> None:
        """Give the connection back when its last bytes, which nobody needs, have come; `close` does nothing then."""
        if not self._is_given_back:
            self._is_given_back = True
            self._wire.keep_when_complete(self._connection)

    def abort(self, reason: str) -> None:
        """Break it off: whoever reads gets a WireError that gives the reason."""
        if not self._is_given_back:
            self._connection.close(reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Wire:
    """Connections to one server."""

    def __init__(self, url: str, *, connect_timeout_s: float, headers: dict[str, str] | None = None) -> None:
        """`url` up to the common beginning of all paths; `headers` go with every request."""
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._path = parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._connect_timeout_s = connect_timeout_s
        fixed = {"host": parts.netloc, "user-agent": "temper", **(headers or {})}
        for name, value in fixed.items():
            if not (name.isascii() and value.isascii() and value.isprintable()):
                raise ValueError(f"the header '{name}' must be plain ASCII text")
        self._head = "".join(f"{name}: {value}\r\n" for name, value in fixed.items())
        self._idle: list[_Connection] = []
        self._closed = False

    async def send(
        self, method: str, path: str, body: bytes = b"", *, silence_s: float, deadline: float | None = None
    ) -> Response:
        """Send a request and wait for the head of its answer.

        `path` follows the URL; one that begins with `//` follows its host instead. The answer fails when
        nothing comes for `silence_s`, or when the loop's clock reaches `deadline`.

        Raises:
            WireTimeout: no head in time.
            WireError: no connection, or it broke before the head.
        """
        target = path[1:] if path.startswith("//") else self._path + path
        message = (
            f"{method} {target} HTTP/1.1\r\n{self._head}accept: */*\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body
        while True:
            connection, used = await self._connection(deadline)
            try:
                await connection.ask(message, silence_s, deadline)
            except WireError as error:
                connection.close()
                if used and error.clean:
                    continue  # the server closed an idle connection while we took it: no loss, try a new one
                raise
            except BaseException:
                connection.close()
                raise
            return Response(self, connection)

    def keep_when_complete(self, connection: _Connection) -> None:
        """Wait, in the background, for the end of an answer whose content is known already."""

        def end() -> None:
            too_late.cancel()
            connection.when_complete = None
            connection.drop_body()
            self.release(connection)

        too_late = asyncio.get_running_loop().call_later(LINGER_S, end)
        if connection.is_complete:
            end()
        else:
            connection.when_complete = end

    def release(self, connection: _Connection) -> None:
        """Keep a connection whose answer is complete, close any other."""
        if connection.is_reusable and not self._closed and len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the connections that nobody uses; the others close when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    async def _connection(self, deadline: float | None) -> tuple[_Connection, bool]:
        """An open connection, and whether it was used before."""
        while self._idle:
            kept = self._idle.pop()
            if kept.is_reusable:
                return kept, True
            kept.close()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._connect_timeout_s
        try:
            async with asyncio.timeout_at(until if deadline is None else min(until, deadline)):
                _, fresh = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        except TimeoutError:
            if deadline is not None and deadline <= loop.time():
                raise WireTimeout("the deadline passed before there was a connection") from None
            raise WireError(
                f"no connection to {self._host}:{self._port} within {self._connect_timeout_s:g} s", clean=True
            ) from None
        except OSError as error:
            raise WireError(f"no connection to {self._host}:{self._port}: {error}", clean=True) from None
        return fresh, False


class _Connection(asyncio.Protocol):
    """One connection and the answer that is being read from it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._lost: str | None = None
        self._paused = False
        self._late = False
        self._watch: asyncio.TimerHandle | None = None
        self.when_complete: Callable[[], None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[str, str] = {}
        self._header_bytes = self._buffered = 0
        self._body: deque[bytes] = deque()
        self._has_head = self._complete = self._began = False
        self._keep_alive = False
        self._heard = self._silence_s = 0.0
        self._deadline: float | None = None
        self._waiter: asyncio.Future[None] | None = None

    # -- what the pool and the response use ----------------------------------------------------------

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent: no answer is open and the server did not hang up."""
        return self._complete and self._keep_alive and self._lost is None and not self._body

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer has come."""
        return self._complete

    def drop_body(self) -> None:
        """Forget what nobody will read."""
        self._body.clear()

    async def ask(self, message: bytes, silence_s: float, deadline: float | None) -> None:
        """Send a request and wait for the head of the answer."""
        self._reset()
        assert self._transport is not None
        if self._lost is None:
            self._transport.write(message)
            self._heard = self._loop.time()
            self._silence_s, self._deadline = silence_s, deadline
            self._guard()
        while not self._has_head:
            if self._lost is not None:
                raise self._failure("before an answer", clean=not self._began)
            await self._wait()

    async def read(self) -> bytes:
        """All bytes of the body that have come, or the next ones; empty at its end."""
        while not self._body:
            if self._complete:
                return b""
            if self._lost is not None:
                raise self._failure("inside an answer", clean=False)
            await self._wait()
        data = self._body.popleft() if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._buffered = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def close(self, reason: str = "closed here") -> None:
        """Hang up."""
        self._lost = self._lost or reason
        self._wake()
        self._unguard()
        if self._transport is not None:
            self._transport.abort()

    def _failure(self, where: str, *, clean: bool) -> WireError:
        if self._late:
            return WireTimeout(f"{self._lost} {where}")
        return WireError(f"the connection closed {where}: {self._lost}", clean=clean)

    def _guard(self) -> None:
        """Hang up on a server that is silent for too long. One timer per answer, not one per piece."""
        now = self._loop.time()
        due = self._heard + self._silence_s
        due = due if self._deadline is None else min(due, self._deadline)
        if self._complete or self._lost is not None:
            self._watch = None
        elif now >= due:
            self._late = True
            passed = self._deadline is not None and now >= self._deadline
            self._lost = "the deadline passed" if passed else f"nothing came for {self._silence_s:g} s"
            self.close()
            self._wake()
        else:
            self._watch = self._loop.call_at(due, self._guard)

    def _unguard(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- called by asyncio ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._began = True
        self._heard = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._lost = f"this is no HTTP: {error}"
            self.close()
        if self._buffered > HIGH_WATER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        # A body without a length ends where the connection does.
        if self._has_head and not self._complete and error is None and self._ends_with_connection():
            self._complete = True
        self._lost = self._lost or (str(error) if error else "the server hung up")
        self._wake()

    def _ends_with_connection(self) -> bool:
        return "content-length" not in self.headers and "chunked" not in self.headers.get("transfer-encoding", "")

    # -- called by the parser ------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("the header is too long")
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # 1xx says that the answer is still to come
            self.status = status
            self._keep_alive = self._parser.should_keep_alive()
            self._has_head = True

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        self._buffered += len(data)

    def on_message_complete(self) -> None:
        if self._has_head:
            self._complete = True
            self._unguard()
            if self.when_complete is not None:
                self.when_complete()
        else:
            self.headers.clear()
