"""What HTTP itself costs: tokens a second through the server over the fake engine, which computes nothing; and the
native engine over HTTP beside the same load in process, in turns.

make prove http ARGS='--streams 1 8 32 64 --rounds 5'

The fake engine's clients are bare sockets that count chunks, so that they do not stand in the way of what is measured;
they share the machine with the server all the same. The native engine's is `temper bench`, on both sides.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from launched import launched, temper_serve

import report
import temper

PROGRAM = """
from temper.engines.fake import FakeEngine
from temper.profile import schema
from temper.server import create_app, serve
engine = FakeEngine(schema.FakeEngine(script="count", max_sequences=256))
serve(create_app(engine), port=0, on_ready=lambda url: print(url, flush=True))
"""


async def one_stream(port: int, tokens: int) -> int:
    """Chunks with text in one whole stream."""
    body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": tokens}
    payload = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n\r\n"
    writer.write(head.encode() + payload)
    text = b""
    while b"[DONE]" not in text[-64:]:
        piece = await reader.read(1 << 16)
        if not piece:
            raise ConnectionError("the stream broke")
        text += piece
    writer.close()
    return text.count(b'"delta":{"content":')


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far: steadier than the clock on a machine that others use too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def tokens_per_s(port: int, streams: int, tokens: int) -> float:
    start = time.perf_counter()
    counts = await asyncio.gather(*(one_stream(port, tokens) for _ in range(streams)))
    assert counts == [tokens] * streams, "a token was lost"
    return sum(counts) / (time.perf_counter() - start)


def native(rounds: int) -> list[dict[str, float]]:
    """Tokens/s of the default profile at 32 streams, round by round: in process, and over HTTP."""
    load = {"concurrency": (32,), "requests": 96, "warmup": 32, "input_tokens": 24, "output_tokens": 128}
    found = []
    with launched(*temper_serve(), path="/ready") as server:
        for number in range(rounds):
            row: dict[str, float] = {}
            for name in ("in process", "over HTTP") if number % 2 == 0 else ("over HTTP", "in process"):
                where = {} if name == "in process" else {"url": server.url}
                (run,) = temper.bench(**where, load=load | {"seed": number})["runs"]
                row[name] = run["output_tokens_per_s"]
            found.append(row)
            print(row, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().rsplit(":", 1)[1])
        try:
            asyncio.run(tokens_per_s(port, 4, 100))
            found: dict[int, list[float]] = {streams: [] for streams in asked.streams}
            spent: dict[int, float] = dict.fromkeys(asked.streams, 0.0)
            for _ in range(asked.rounds):
                for streams in asked.streams:
                    before = cpu_seconds(server.pid)
                    found[streams].append(asyncio.run(tokens_per_s(port, streams, asked.tokens)))
                    spent[streams] += cpu_seconds(server.pid) - before
        finally:
            server.terminate()
    load = os.getloadavg()[0]
    pairs = native(asked.rounds)
    shares = [pair["over HTTP"] / pair["in process"] for pair in pairs]
    rows = [
        {
            "streams": n,
            "tokens/s, median": statistics.median(rates),
            "lowest": min(rates),
            "highest": max(rates),
            "server CPU, µs a token": spent[n] * 1e6 / (n * asked.tokens * asked.rounds),
        }
        for n, rates in found.items()
    ]
    body = (
        "Chat completions streamed over the fake engine, one token a chunk, clients on the same machine "
        f"(load average at the end: {load:.1f}).\n\n" + report.table(rows) + "\n\n## The native engine, 32 streams\n\n"
        f"Over HTTP **{statistics.median(shares):.0%}** ({min(shares):.0%}–{max(shares):.0%}) of the tokens/s in "
        f"process, {len(pairs)} rounds in turns; 24 tokens in, 128 out.\n\n" + report.table(pairs)
    )
    data = {"rates": found, "cpu_s": spent, "load_average": load, "native": pairs}
    path = report.write("http", "What HTTP itself costs", body, data)
    print(path.read_text().split("<details>")[0])


if __name__ == "__main__":
    main()
