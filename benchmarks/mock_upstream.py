"""A server that streams made-up tokens at an exact pace and costs next to nothing: what generators are measured with.

    python mock_upstream.py --port 8123 --ttft-ms 50 --itl-ms 20 [--stall-after 8 --stall-for 3]

Every POST is answered with `max_tokens` chunks of OpenAI's completions. With a stall, no chunk leaves the server
between those seconds, counted from the first POST.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MODELS = json.dumps({"object": "list", "data": [{"id": "mock", "object": "model", "owned_by": "sglang"}]}).encode()


def chunk(value: bytes) -> bytes:
    value = b"data: " + value + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(value), value)


TOKEN = chunk(
    b'{"id":"cmpl-1","object":"text_completion","created":1,"model":"mock","choices":[{"index":0,"text":" word",'
    b'"logprobs":null,"finish_reason":null}],"usage":null}'
)
FINISH = chunk(b'{"id":"cmpl-1","choices":[{"index":0,"text":"","finish_reason":"length"}]}')


class Stream(asyncio.Protocol):
    """One connection."""

    args: argparse.Namespace
    first_post: float | None = None

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.seen += data
        head, end, rest = self.seen.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")), 0)
        if not end or len(rest) < length:
            return
        self.seen = b""
        if head.startswith(b"GET"):
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(MODELS), MODELS))
            return
        now = self.loop.time()
        if Stream.first_post is None:
            Stream.first_post = now
        self.left = self.total = int(json.loads(rest[:length]).get("max_tokens", 16))
        self.transport.write(HEAD)
        self.due = now + self.args.ttft_ms / 1000
        self.loop.call_at(self.after_stall(self.due), self.say)

    def after_stall(self, due: float) -> float:
        """`due`, or the end of the stall that it falls into."""
        if self.args.stall_for and Stream.first_post is not None:
            begin = Stream.first_post + self.args.stall_after
            if begin <= due < begin + self.args.stall_for:
                return begin + self.args.stall_for
        return due

    def say(self) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(TOKEN)
        self.left -= 1
        if self.left:
            self.due = max(self.due, self.loop.time() - 0.5) + self.args.itl_ms / 1000
            self.loop.call_at(self.after_stall(self.due), self.say)
            return
        usage = b'{"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":%d}}' % self.total
        self.transport.write(FINISH + chunk(usage) + chunk(b"[DONE]") + b"0\r\n\r\n")


async def serve(args: argparse.Namespace) -> None:
    Stream.args = args
    server = await asyncio.get_running_loop().create_server(Stream, "127.0.0.1", args.port, backlog=1024)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ttft-ms", type=float, default=50.0)
    parser.add_argument("--itl-ms", type=float, default=10.0)
    parser.add_argument("--stall-after", type=float, default=0.0)
    parser.add_argument("--stall-for", type=float, default=0.0)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
