"""Changing the profile of a running server: by whom, with what, and that nobody notices; what the cache did."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from temper.engines.base import Engine
from temper.engines.combine.cached import CachedEngine
from temper.engines.fake import FakeEngine
from temper.engines.swap import Swappable
from temper.profile import schema
from temper.profile.schema import Profile
from temper.server import ServerSettings
from tests.engines.native.fakes import make_engine
from tests.server.conftest import Running, fake, running

ADMIN = {"authorization": "Bearer admin-secret"}
USER = {"authorization": "Bearer user-secret"}


def profile(script: str, **fields: object) -> Profile:
    return Profile(engine=schema.FakeEngine.model_validate({"script": script, **fields}))


async def make(wanted: Profile) -> Engine:
    assert isinstance(wanted.engine, schema.FakeEngine)
    return FakeEngine(wanted.engine)


@pytest.fixture
async def changing() -> AsyncIterator[Running]:
    first = profile("fixed:first")
    settings = ServerSettings(api_keys=("user-secret",), admin_keys=("admin-secret",))
    async with running(Swappable(first, await make(first), make), settings) as found:
        yield found


async def ask(server: Running) -> str:
    body = {"messages": [{"role": "user", "content": "x"}]}
    async with server.http as http:
        answer = await http.post("/v1/chat/completions", json=body, headers=USER)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


async def post(server: Running, body: object, headers: dict[str, str] = ADMIN) -> tuple[int, dict]:
    async with server.http as http:
        answer = await http.post("/admin/profile", json=body, headers=headers)
    return answer.status_code, answer.json()


async def test_a_profile_is_changed_while_a_stream_runs(changing: Running):
    assert await ask(changing) == "first"
    status, told = await post(changing, {"profile": profile("count", itl_ms=10).model_dump(mode="json")})
    assert (status, told["changed"], told["models"]) == (200, "swapped", ["fake"])
    assert {change["path"] for change in told["fields"]} == {"engine.script", "engine.itl_ms"}

    async def stream() -> str:
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 40}
        async with (
            changing.http as http,
            http.stream("POST", "/v1/chat/completions", json=body, headers=USER) as answer,
        ):
            return (await answer.aread()).decode()

    slow = asyncio.create_task(stream())
    await asyncio.sleep(0.1)
    status, told = await post(changing, {"toml": '[engine]\nkind = "fake"\nscript = "fixed:second"\n'})
    assert (status, told["changed"]) == (200, "swapped")
    assert await ask(changing) == "second"
    text = await slow
    assert '" 40"' in text
    assert text.rstrip().endswith("[DONE]")


async def test_only_an_admin_key_opens_it(changing: Running):
    for headers in ({}, USER):
        status, told = await post(changing, {}, headers)
        assert (status, told["error"]["code"]) == (401, "invalid_api_key")
    async with changing.http as http:
        assert (await http.get("/v1/models", headers=ADMIN)).status_code == 401, "and it opens nothing else"
        shown = await http.get("/admin/profile", headers=ADMIN)
    assert shown.json()["profile"]["engine"]["script"] == "fixed:first"


async def test_without_an_admin_key_it_stays_shut():
    first = profile("echo")
    async with running(Swappable(first, await make(first), make)) as server:
        status, told = await post(server, {}, {})
    assert (status, told["error"]["code"]) == (403, "not_allowed")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"profile": {"engine": {"kind": "fake", "scrpt": "x"}}}, "did you mean 'engine.script'"),
        ({"profile": {"engine": {"kind": "fake", "script": "nothing"}}}, "the old one goes on"),
        ({"toml": "engine = "}, "TOML"),
        ({"profile": "text"}, "must be a table"),
        ({"other": 1}, "the body holds"),
        ({}, "did not come from a file"),
    ],
)
async def test_what_cannot_be_served_changes_nothing(changing: Running, body: dict, words: str):
    status, told = await post(changing, body)
    assert status == 400
    assert words in told["error"]["message"]
    assert await ask(changing) == "first"


async def test_reading_the_file_again(changing: Running):
    changing.state.reread = lambda: profile("fixed:from the file")
    status, told = await post(changing, {})
    assert (status, told["changed"]) == (200, "swapped")
    assert await ask(changing) == "from the file"
    assert (await post(changing, {}))[1]["changed"] == "unchanged"


async def test_an_engine_without_a_profile_cannot_be_changed():
    async with running(fake("echo"), ServerSettings(admin_keys=("admin-secret",))) as server:
        status, told = await post(server, {})
    assert (status, told["error"]["code"]) == (400, "unsupported")


@pytest.mark.parametrize("streams", [False, True])
async def test_the_answer_says_what_the_cache_did(streams: bool):
    section = schema.FakeEngine(script="echo")
    async with running(CachedEngine(schema.CachedEngine(engine=section), engine=FakeEngine(section))) as server:
        body = {"messages": [{"role": "user", "content": "x"}], "temperature": 0, "stream": streams}
        seen = []
        async with server.http as http:
            for change, headers in (
                ({}, {}),
                ({}, {}),
                ({"temperature": 1}, {}),
                ({}, {"cache-control": "no-store"}),
                ({"extensions": {"cache": "no-store"}}, {}),
            ):
                answer = await http.post("/v1/chat/completions", json=body | change, headers=headers)
                assert answer.status_code == 200, answer.text
                seen.append(answer.headers["x-cache"])
    assert seen == ["MISS", "HIT", "BYPASS", "BYPASS", "BYPASS"]


async def test_without_a_cache_nothing_is_said(server: Running):
    async with server.http as http:
        answer = await http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})
        assert "x-cache" not in answer.headers


async def test_a_stream_that_just_ends_is_an_error():
    async with running(fake("vanish")) as server, server.http as http:
        body = {"messages": [{"role": "user", "content": "x"}]}
        assert (await http.post("/v1/chat/completions", json=body)).status_code == 500
        text = (await http.post("/v1/chat/completions", json=body | {"stream": True})).text
    assert "[DONE]" not in text
    assert json.loads(text.strip().splitlines()[-1].removeprefix("data: "))["error"]["code"] == "engine_failure"


async def test_a_server_is_traced_by_its_operator():
    settings = ServerSettings(admin_keys=("admin-secret",))
    traced, _ = make_engine()
    async with running({"traced": traced, "fake": fake()}, settings) as server, server.http as http:
        for body in ({}, {"on": "yes"}, {"on": True, "more": 1}):
            assert (await http.post("/admin/trace", json=body, headers=ADMIN)).status_code == 400
        early = await http.post("/admin/trace", json={"on": False}, headers=ADMIN)
        assert (early.status_code, early.json()["error"]["message"][:29]) == (400, "there is no trace to end (beg")
        assert (await http.post("/admin/trace", json={"on": True})).status_code == 401
        assert (await http.post("/admin/trace", json={"on": True}, headers=ADMIN)).json() == {"tracing": True}
        await http.post("/v1/completions", json={"model": "traced", "prompt": "x", "max_tokens": 5})
        found = (await http.post("/admin/trace", json={"on": False}, headers=ADMIN)).json()
    assert found["http_cpu_s"] > 0
    assert found["models"]["traced"]["trace"]["num_steps"] == 5
    assert found["models"]["fake"] == {
        "trace": None, "reason": "engine 'fake' does not tell where its own time goes",
    }  # fmt: skip
