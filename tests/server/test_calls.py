"""Clients that leave, in every way and at every moment: the engine's work ends with them."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from tests.server.conftest import Running, fake, running


async def leave(server: Running, path: str, body: dict, after_s: float, *, read: bool) -> None:
    """Send a request and cut the connection after a while."""
    port = int(server.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n\r\n"
    writer.write(head.encode() + payload)
    end = asyncio.get_running_loop().time() + after_s
    while read and (left := end - asyncio.get_running_loop().time()) > 0:
        try:
            if not await asyncio.wait_for(reader.read(4096), left):
                break
        except TimeoutError:
            break
    if not read:
        await asyncio.sleep(after_s)
    writer.transport.abort()


async def settled(server: Running, within_s: float = 1.0) -> None:
    end = asyncio.get_running_loop().time() + within_s
    while True:
        found = server.state.stats().values()
        held = [(f.num_running, f.num_waiting, f.kv_used_bytes) for f in found]
        if all(h == (0, 0, 0) for h in held) and not server.state.num_open:
            return
        assert asyncio.get_running_loop().time() < end, f"{held}, {server.state.num_open} open"
        await asyncio.sleep(0.01)


async def test_200_clients_that_leave_hold_nothing():
    rng = random.Random(7)
    async with running(fake("words", max_sequences=16, itl_ms=5, ttft_ms=20)) as server:
        asks = []
        for i in range(200):
            stream, chat = bool(i % 2), bool(i % 3)
            prompt = {"messages": [{"role": "user", "content": "x"}]} if chat else {"prompt": ["x", "y"]}
            path = "/v1/chat/completions" if chat else "/v1/completions"
            body = {**prompt, "stream": stream, "max_tokens": 2000, "n": 1 + i % 2}
            asks.append(leave(server, path, body, rng.uniform(0, 0.8), read=rng.random() < 0.7))
        await asyncio.gather(*asks)
        await settled(server)
        async with server.http as http:
            answer = await http.post("/v1/completions", json={"prompt": "x", "max_tokens": 3})
            metrics = (await http.get("/metrics")).text
        assert answer.json()["usage"]["completion_tokens"] == 3
    aborted = [line for line in metrics.splitlines() if 'finished_reason="abort"' in line and "_created" not in line]
    assert float(aborted[0].rsplit(" ", 1)[1]) > 100


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_a_stalled_answer(stream: bool):
    async with running(fake("stall:0")) as server:
        body = {"messages": [{"role": "user", "content": "x"}], "stream": stream}
        await leave(server, "/v1/chat/completions", body, 0.1, read=True)
        await settled(server)
        async with server.http as http:
            assert (await http.get("/ready")).status_code == 200


async def test_a_client_that_reads_slowly_is_not_forgotten():
    """Its connection's buffers fill, the engine waits for it, and it gets the whole answer in the end."""
    async with running(fake("words")) as server:
        port = int(server.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        body = json.dumps({"messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 4000}).encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        text = b""
        for _ in range(20):
            text += await reader.read(1000)
            await asyncio.sleep(0.01)
        while b"[DONE]" not in text:
            text += await asyncio.wait_for(reader.read(1 << 20), 10)
        writer.close()
        assert text.count(b'"content":" ') == 4000
        await settled(server)


async def test_the_others_go_on_when_one_leaves():
    async with running(fake("count", itl_ms=2)) as server:
        client = server.openai()
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 500}
        staying = asyncio.create_task(
            client.chat.completions.create(model="fake", messages=body["messages"], max_tokens=60)
        )
        await asyncio.gather(*(leave(server, "/v1/chat/completions", body, 0.03, read=True) for _ in range(8)))
        answer = await staying
        assert answer.choices[0].message.content.endswith(" 60")
