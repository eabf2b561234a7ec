"""A mock of an OpenAI-compatible server that costs next to nothing: 20 chunks, one every few milliseconds.

Raw asyncio, so that what a proxy adds is not hidden behind the cost of what it proxies. Each chunk is due at a time
counted from the request, so that no timer's lateness adds up and a whole answer takes as long as the stream.
Usage: upstream.py PORT GAP_MS
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httptools
import uvloop

CHUNKS = 20
HEAD = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
USAGE = {"prompt_tokens": 8, "completion_tokens": CHUNKS, "total_tokens": 8 + CHUNKS}


def _event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    data = {**HEAD, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


USAGE_EVENT = b"data: " + json.dumps({**HEAD, "choices": [], "usage": USAGE}).encode() + b"\n\n"
PIECES = [_chunk(_event({"content": f" word{i}"})) for i in range(CHUNKS - 1)]
LAST = _event({"content": " end"}) + _event({}, "stop")
LAST_PIECE = _chunk(LAST + b"data: [DONE]\n\n") + b"0\r\n\r\n"
LAST_PIECE_USAGE = _chunk(LAST + USAGE_EVENT + b"data: [DONE]\n\n") + b"0\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MESSAGE = {"role": "assistant", "content": "".join(f" word{i}" for i in range(CHUNKS - 1)) + " end"}
WHOLE = {
    **HEAD,
    "object": "chat.completion",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
    "usage": USAGE,
}
MODELS = {"object": "list", "data": [{"id": "mock", "object": "model", "owned_by": "mock"}]}


def _answer(content: Any) -> bytes:
    body = json.dumps(content).encode()
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Mock(asyncio.Protocol):
    """One connection."""

    gap_s = 0.002

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._body = self._url = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        url, body, self._body, self._url = self._url, self._body, b"", b""
        if b"completions" not in url:
            self._transport.write(_answer(MODELS))
            return
        asked = json.loads(body)
        if not asked.get("stream"):
            self._loop.call_later(self.gap_s * CHUNKS, self._transport.write, _answer(WHOLE))
            return
        self._transport.write(STREAM_HEAD)
        last = LAST_PIECE_USAGE if (asked.get("stream_options") or {}).get("include_usage") else LAST_PIECE
        begun = self._loop.time()
        self._loop.call_at(begun + self.gap_s, self._say, begun, 0, last)

    def _say(self, begun: float, number: int, last: bytes) -> None:
        if self._transport.is_closing():
            return
        if number == CHUNKS - 1:
            self._transport.write(last)
            return
        self._transport.write(PIECES[number])
        self._loop.call_at(begun + (number + 2) * self.gap_s, self._say, begun, number + 1, last)


async def main(port: int, gap_ms: float) -> None:
    """Serve for ever."""
    Mock.gap_s = gap_ms / 1000
    server = await asyncio.get_running_loop().create_server(Mock, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
