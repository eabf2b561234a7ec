"""The router without a browser: pages, headers, static files, history."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import temper.dashboard
from temper.dashboard.assets import load_assets
from temper.dashboard.history import History
from temper.dashboard.pages import PAGES
from temper.dashboard.router import OPEN_PATHS, create_router
from temper.engines.base import Capabilities, Health
from temper.server import ServerSettings, create_app
from tests.dashboard.serving import API_KEY, MODEL, ScriptedEngine
from tests.waiting import until

STATIC = Path(temper.dashboard.__file__).parent / "static"


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


def serving(engine: ScriptedEngine, *api_keys: str) -> TestClient:
    settings = ServerSettings(api_keys=api_keys, open_paths=OPEN_PATHS)
    return TestClient(create_app(engine, extensions=[create_router()], settings=settings))


@pytest.fixture
def client(engine: ScriptedEngine) -> Iterator[TestClient]:
    with serving(engine) as client:
        yield client


class CountingFigures:
    def __init__(self) -> None:
        self.taken = 0

    def snapshot(self) -> dict[str, Any]:
        self.taken += 1
        return {"value": self.taken}


def test_the_page_offers_the_presets(client: TestClient) -> None:
    html = client.get("/").text
    assert '<option value="legal"' in html
    assert "用一句话介绍一下你自己。" in html


def test_the_navigation_shows_the_pages_that_exist(client: TestClient) -> None:
    html = client.get("/").text
    shown = re.findall(r'<li><a href="([^"]+)"( aria-current="page")?>([^<]+)</a></li>', html)
    assert [(path, title) for path, _, title in shown] == [(page.path, page.title) for page in PAGES]
    assert [title for _, current, title in shown if current] == ["Playground"]
    for page in PAGES:
        assert client.get(page.path).status_code == 200


def test_everything_carries_a_strict_content_security_policy(client: TestClient) -> None:
    for path in ("/", "/dashboard/status", "/dashboard/live", "/dashboard/static/js/playground.js"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_holds_no_inline_script_or_style(client: TestClient) -> None:
    html = client.get("/").text
    assert re.findall(r"<script(?![^>]*\ssrc=)", html) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|hx-on", html) == []


def test_every_file_that_the_page_names_is_served(client: TestClient) -> None:
    html = client.get("/").text
    named = set(re.findall(r'(?:src|href)="(/dashboard/static/[^"]+)"', html))
    assert len(named) >= 7
    for path in named:
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert answer.content == (STATIC / path.removeprefix("/dashboard/static/")).read_bytes()


def test_imports_between_scripts_resolve() -> None:
    for script in (STATIC / "js").glob("*.js"):
        for imported in re.findall(r'from "\./([^"]+)"', script.read_text("utf-8")):
            assert (STATIC / "js" / imported).is_file(), f"{script.name} imports {imported}"


def test_an_unchanged_file_costs_a_304(client: TestClient) -> None:
    first = client.get("/dashboard/static/css/base.css")
    assert first.headers["content-type"].startswith("text/css")
    again = client.get("/dashboard/static/css/base.css", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""


@pytest.mark.parametrize(
    "path", ["nope.js", "../router.py", "%2e%2e/router.py", "..%2f..%2ftypes.py", "vendor/README.md"]
)
def test_nothing_but_the_listed_files_is_served(client: TestClient, path: str) -> None:
    answer = client.get(f"/dashboard/static/{path}")
    assert answer.status_code == 404


def test_assets_have_media_types_and_distinct_etags() -> None:
    assets = load_assets()
    assert assets["js/playground.js"].media_type.startswith("text/javascript")
    assert assets["icon.svg"].media_type == "image/svg+xml"
    assert len({asset.etag for asset in assets.values()}) == len(assets)


def test_live_gives_only_what_is_new(client: TestClient) -> None:
    body = client.get("/dashboard/live").json()
    newest = body["samples"][-1]
    assert newest["running"] == 0
    assert body["keep"] >= 60
    assert client.get(f"/dashboard/live?after={newest['sequence']}").json()["samples"] in ([], [newest])
    assert client.get("/dashboard/live?after=-1").status_code == 400


def test_a_key_guards_figures_and_status_but_not_the_page(engine: ScriptedEngine) -> None:
    with serving(engine, API_KEY) as client:
        assert client.get("/dashboard/live").status_code == 401
        assert client.get("/dashboard/status").status_code == 401
        assert client.get("/dashboard/live", headers={"Authorization": f"Bearer {API_KEY}"}).status_code == 200
        assert client.get("/dashboard/static/js/frame.js").status_code == 200
        page = client.get("/")
        assert page.status_code == 200
        assert MODEL not in page.text


def test_thinking_is_offered_where_the_engine_knows_it(client: TestClient, engine: ScriptedEngine) -> None:
    assert 'id="effort"' in client.get("/").text
    engine.capabilities = lambda: Capabilities(model=MODEL)  # type: ignore[method-assign]
    assert 'id="effort"' not in client.get("/").text


def test_status_says_what_is_wrong_and_escapes_it(client: TestClient, engine: ScriptedEngine) -> None:
    assert f"· {MODEL}" in client.get("/dashboard/status").text
    engine.health = lambda: Health(alive=True, ready=False, reason="<b>stuck</b>")  # type: ignore[method-assign]
    html = client.get("/dashboard/status").text
    assert "Not ready" in html
    assert "scripted: &lt;b&gt;stuck&lt;/b&gt;" in html
    engine.health = lambda: Health(alive=False, ready=False, reason="gone")  # type: ignore[method-assign]
    assert "Down" in client.get("/dashboard/status").text


def test_history_keeps_the_newest_and_numbers_them() -> None:
    history = History(CountingFigures(), keep=3)
    for _ in range(5):
        history.take()
    assert [sample["value"] for sample in history.after(0)] == [3, 4, 5]
    assert [sample["sequence"] for sample in history.after(4)] == [5]
    assert history.after(5) == []


def test_history_gives_all_to_a_page_from_before_a_restart() -> None:
    history = History(CountingFigures())
    history.take()
    assert [sample["value"] for sample in history.after(1000)] == [1]


async def test_history_samples_while_it_runs() -> None:
    figures = CountingFigures()
    task = asyncio.create_task(History(figures, interval_s=0.01).run())
    await until(lambda: figures.taken >= 3)
    task.cancel()
    assert figures.taken >= 3


async def test_history_survives_a_snapshot_that_fails() -> None:
    figures = CountingFigures()

    def fail_twice() -> dict[str, Any]:
        figures.taken += 1
        if figures.taken <= 2:
            raise RuntimeError("not now")
        return {"value": figures.taken}

    figures.snapshot = fail_twice  # type: ignore[method-assign]
    history = History(figures, interval_s=0.01)
    task = asyncio.create_task(history.run())
    await until(lambda: len(history.after(0)) >= 2)
    task.cancel()
    assert [sample["value"] for sample in history.after(0)][:2] == [3, 4]
