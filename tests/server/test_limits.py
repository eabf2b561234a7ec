"""Sizes that a client controls, each with its bound."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.server import ServerSettings
from temper.server.limits import MAX_NESTING, depth_of
from tests.server.conftest import Running, fake, running

PATH = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "x"}]}
NESTED = st.recursive(st.none() | st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=20)


def error(answer: httpx.Response) -> dict:
    return answer.json()["error"]


@given(NESTED)
def test_depth_is_counted(value: object):
    def slowly(value: object) -> int:
        return 1 + max(map(slowly, value), default=0) if isinstance(value, list) else 0

    assert depth_of(value, 1000) == slowly(value)


def test_depth_stops_counting():
    value: object = 0
    for _ in range(10_000):
        value = [value]
    assert depth_of(value, 64) == 65


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_long(chunked: bool):
    async with running(fake(), ServerSettings(max_body_bytes=1000)) as server, server.http as http:
        body = json.dumps(ASK | {"user": "x" * 2000}).encode()

        async def pieces():
            for at in range(0, len(body), 100):
                yield body[at : at + 100]

        answer = await http.post(PATH, content=pieces() if chunked else body)
        assert answer.status_code == 413
        assert error(answer)["param"] == "body"
        assert (await http.post(PATH, json=ASK)).status_code == 200


async def test_a_lying_length_is_not_believed():
    async with running(fake(), ServerSettings(max_body_bytes=1000)) as server:
        port = int(server.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n".encode())
        assert b"413" in await reader.readline()
        writer.close()


async def test_a_body_that_never_ends():
    async with running(fake(), ServerSettings(body_timeout_s=0.1)) as server:
        port = int(server.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{{".encode())
        assert b"408" in await reader.readline()
        writer.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b'"text"',
        b"null",
        b"7",
        b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": -Infinity}',
        b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"seed": 1' + b"0" * 10_000 + b"}",
    ],
)
async def test_bodies_that_are_no_request(server: Running, body: bytes):
    async with server.http as http:
        answer = await http.post(PATH, content=body)
    assert answer.status_code == 400
    assert error(answer)["param"], error(answer)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stop", ["x"] * 65),
        ("stop", [f"{i}" for i in range(17)]),
        ("stop", ""),
        ("n", 129),
        ("n", 10**30),
        ("top_logprobs", 21),
        ("logit_bias", {str(i): 1 for i in range(1025)}),
        ("logit_bias", {"x": 1}),
        ("messages", [{"role": "user", "content": "x"}] * 4097),
        ("max_tokens", 8192),
        ("tools", [{"type": "function", "function": {"name": "f"}}] * 257),
        ("metadata", {"deep": json.loads("[" * MAX_NESTING + "]" * MAX_NESTING)}),
        ("extensions", {"unheard_of": 1}),
    ],
)
async def test_counts_are_bounded(server: Running, field: str, value: object):
    body = ASK | {"model": "echo", field: value} | ({"logprobs": True} if field == "top_logprobs" else {})
    async with server.http as http:
        answer = await http.post(PATH, json=body)
    assert answer.status_code == 400
    named = error(answer)["param"]
    assert (
        named == field
        or named.startswith(field + ".")
        or {named, field} <= {"logprobs", "top_logprobs", "messages", "max_tokens"}
    )
