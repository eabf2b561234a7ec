"""The door: keys, host names, pages of elsewhere."""

from __future__ import annotations

import logging

import httpx
import openai
import pytest

from temper.server import ServerSettings, create_app
from tests.server.conftest import Running, fake, running

ASK = [{"role": "user", "content": "x"}]
KEYS = ServerSettings(api_keys=("first-key", "second-kéy"))


async def test_a_key_is_needed():
    async with running(fake(), KEYS) as server:
        with pytest.raises(openai.AuthenticationError) as caught:
            await server.openai(api_key="wrong").chat.completions.create(model="fake", messages=ASK)
        assert caught.value.code == "invalid_api_key"
        answer = await server.openai(api_key="first-key").chat.completions.create(model="fake", messages=ASK)
        assert answer.choices[0].message.content == "x"
        async with server.http as http:
            for path in ("/v1/models", "/metrics", "/openapi.json", "/no/such/path"):
                refused = await http.get(path)
                assert refused.status_code == 401, path
                assert refused.headers["www-authenticate"] == "Bearer"
            for path in ("/health", "/ready"):
                assert (await http.get(path)).status_code == 200
            second = await http.get("/v1/models", headers={"authorization": "bearer second-kéy".encode()})
            assert second.status_code == 200
            for value in ("first-key", "Basic first-key", "Bearer", "Bearer first-key2", b"Bearer \xff"):
                assert (await http.get("/v1/models", headers={"authorization": value})).status_code == 401


async def test_paths_can_be_opened():
    settings = ServerSettings(api_keys=("k",), open_paths=("/health", "/v1/models", "/static/*"))
    async with running(fake(), settings) as server, server.http as http:
        assert (await http.get("/v1/models")).status_code == 200
        assert (await http.get("/static/x.css")).status_code == 404
        assert (await http.get("/v1/models/fake")).status_code == 401
        assert (await http.get("/ready")).status_code == 401


async def test_keys_are_never_shown(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    async with running(fake(), KEYS) as server, server.http as http:
        answer = await http.get("/v1/models", headers={"authorization": "Bearer my-secret-guess"})
    assert "my-secret-guess" not in answer.text + caplog.text
    assert "first-key" not in answer.text + caplog.text + repr(KEYS)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:9", "LOCALHOST:1"])
async def test_loopback_names_are_let_in(server: Running, host: str):
    async with server.http as http:
        assert (await http.get("/health", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""])
async def test_other_names_are_not(server: Running, host: str):
    async with server.http as http:
        answer = await http.get("/health", headers={"host": host})
    assert answer.status_code == 403
    assert answer.json()["error"]["param"] == "Host"


async def test_names_can_be_allowed():
    async with running(fake(), ServerSettings(allowed_hosts=("model.example",))) as server, server.http as http:
        assert (await http.get("/health", headers={"host": "model.example:443"})).status_code == 200
        assert (await http.get("/health", headers={"host": "other.example"})).status_code == 403


async def test_away_from_loopback_any_name_is_fine():
    transport = httpx.ASGITransport(create_app(fake()))
    async with httpx.AsyncClient(transport=transport, base_url="http://model.example") as http:
        assert (await http.get("/health")).status_code == 200


async def test_pages_of_elsewhere_may_not_call(server: Running):
    async with server.http as http:
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
            answer = await http.post("/v1/chat/completions", json={"messages": ASK}, headers={"origin": origin})
            assert answer.status_code == 403
            assert answer.json()["error"]["param"] == "Origin"
        own = await http.post("/v1/chat/completions", json={"messages": ASK}, headers={"origin": server.url})
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers
    assert own.headers["x-content-type-options"] == "nosniff"


async def test_origins_can_be_allowed():
    settings = ServerSettings(cors_origins=("https://app.example",), api_keys=("k",))
    async with running(fake(), settings) as server, server.http as http:
        asks = {"origin": "https://app.example", "access-control-request-method": "POST"}
        preflight = await http.options("/v1/chat/completions", headers=asks)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        other = await http.options("/v1/chat/completions", headers=asks | {"origin": "https://evil.example"})
        assert other.status_code == 403
