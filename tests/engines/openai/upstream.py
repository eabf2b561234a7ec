"""A scripted server: raw bytes to each request, so that every way to misbehave can be written down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

MODELS = {"object": "list", "data": [{"id": "m", "owned_by": "temper", "max_model_len": 4096}]}
CUT = object()
"""In a script: close the connection here."""
HANG = object()
"""In a script: say nothing more."""

Piece = bytes | float | object


def answer(status: int, body: object, **headers: str) -> list[Piece]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return [f"HTTP/1.1 {status} X\r\ncontent-length: {len(raw)}\r\n{head}\r\n".encode() + raw]


def head(status: int = 200) -> bytes:
    return f"HTTP/1.1 {status} OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".encode()


def chunk(raw: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(raw), raw)


def event(value: object) -> bytes:
    return chunk(b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n")


def text(said: str, reason: str | None = None, index: int = 0) -> bytes:
    return event({"choices": [{"index": index, "text": said, "finish_reason": reason}]})


DONE = event(b"[DONE]") + b"0\r\n\r\n"


@dataclass
class Upstream:
    """What came in, and how many connections were made."""

    url: str
    bodies: list[dict] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    num_connections: int = 0


@asynccontextmanager
async def upstream(script: Callable[[int], list[Piece]], models: list[Piece] | None = None) -> AsyncIterator[Upstream]:
    """A server that plays `script(number of the POST)`."""
    state = Upstream("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.num_connections += 1
        try:
            while True:
                given = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (
                        int(line.split(":")[1])
                        for line in given.lower().split("\r\n")
                        if line.startswith("content-length")
                    ),
                    0,
                )
                body = await reader.readexactly(length)
                if given.startswith("GET"):
                    pieces = models or answer(200, MODELS)
                else:
                    state.heads.append(given)
                    state.bodies.append(json.loads(body))
                    pieces = script(len(state.bodies) - 1)
                for piece in pieces:
                    if piece is CUT:
                        writer.close()
                        return
                    if piece is HANG:
                        await asyncio.sleep(30)
                    elif isinstance(piece, float):
                        await asyncio.sleep(piece)
                    else:
                        writer.write(piece)
                        await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield state
    finally:
        server.close()
