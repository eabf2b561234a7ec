"""The page of studies: charts from a report, the list and the study over HTTP, the one file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from temper.dashboard import study_charts
from temper.dashboard.router import OPEN_PATHS, create_router
from temper.dashboard.studies import standalone
from temper.server import ServerSettings, create_app
from temper.tuner.ledger import FILE, Ledger
from tests.dashboard.browser import Browser
from tests.dashboard.serving import API_KEY, ScriptedEngine
from tests.tuner.studies import machine, study

CRASH = '[[effects]]\nknob = "max_sequences"\nvalue = 32\ntrouble = "crash"\n'


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return study(machine(CRASH), trials=14, objective="throughput, ttft p90 < 5 s")


@pytest.fixture
def home(tmp_path: Path, document: dict[str, Any]) -> Path:
    ledger = Ledger(tmp_path / FILE)
    ledger.begin("20260101-done", {"workload": {"name": "many-users"}, "objective": ""})
    for trial in document["trials"]:
        ledger.put_trial("20260101-done", trial["number"], trial)
    ledger.write("20260101-done", document, "done")
    ledger.begin("20260102-going", {"workload": {"name": "<b>x</b>"}, "objective": "p99 -20 %"})
    ledger.put_trial("20260102-going", 0, document["trials"][0])
    ledger.close()
    return tmp_path


def serving(home: Path | None, *keys: str) -> TestClient:
    settings = ServerSettings(api_keys=keys, open_paths=OPEN_PATHS)
    return TestClient(create_app(ScriptedEngine(), extensions=[create_router(home=home)], settings=settings))


def test_the_list_and_a_study_are_served(home: Path, document: dict[str, Any]) -> None:
    with serving(home) as client:
        assert 'hx-get="/dashboard/studies"' in client.get("/studies").text
        assert 'hx-get="/dashboard/studies/20260101-done"' in client.get("/studies?study=20260101-done").text
        listed = client.get("/dashboard/studies").text
        assert listed.index("20260102-going") < listed.index("20260101-done")
        assert "<b>x</b>" not in listed
        shown = client.get("/dashboard/studies/20260101-done")
        assert document["reason"] in shown.text
        assert shown.text.count("<svg") == 5
        assert "style=" not in shown.text  # the policy forbids it
        assert "script-src 'self'" in shown.headers["content-security-policy"]
        assert "It runs. 1 trials so far" in client.get("/dashboard/studies/20260102").text
        assert client.get("/dashboard/studies/none").status_code == 404


def test_figures_are_behind_the_key_and_a_server_without_a_home_has_none(home: Path) -> None:
    with serving(home, API_KEY) as client:
        assert client.get("/studies").status_code == 200
        assert client.get("/dashboard/studies").status_code == 401
        assert client.get("/dashboard/studies/20260101-done").status_code == 401
    with serving(None) as client:
        assert "No study yet" in client.get("/dashboard/studies").text
        assert client.get("/dashboard/studies/last").status_code == 404


def test_one_file_needs_no_network(document: dict[str, Any]) -> None:
    text = standalone(document)
    assert text.startswith("<!doctype html>")
    assert not re.search(r'(src|href)="|url\(|<script|@import', text)
    assert document["study"] in text


def test_what_a_profile_says_cannot_run(document: dict[str, Any]) -> None:
    evil = {**document, "reason": "<script>alert(1)</script>", "story": ["<img src=x onerror=alert(1)>"]}
    evil["trials"] = [{**trial, "reason": '"><script>alert(1)</script>'} for trial in document["trials"]]
    text = standalone(evil)
    assert "<script>" not in text
    assert "<img" not in text


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    points = [(1.0, 5.0), (2.0, 4.0), (2.0, 3.0), (3.0, 4.5), (4.0, 1.0)]
    assert study_charts.pareto_front(points, (True, False)) == [(4.0, 1.0)]
    assert study_charts.pareto_front(points, (True, True)) == [(1.0, 5.0), (3.0, 4.5), (4.0, 1.0)]


def test_a_browser_shows_the_study_without_a_complaint(home: Path, browser: Browser, document: dict[str, Any]) -> None:
    import threading
    import time

    import uvicorn

    app = create_app(ScriptedEngine(), extensions=[create_router(home=home)], settings=ServerSettings())
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    page = browser.new_page()
    try:
        page.goto(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/studies?study=20260101-done")
        page.wait_for("document.querySelectorAll('svg.chart').length === 5")
        assert document["reason"] in page.evaluate("document.body.innerText")
        assert page.outside_requests() == []
        assert page.console == []
    finally:
        page.close()
        server.should_exit = True
        thread.join(10)
