"""The page of rollouts: what it says over HTTP, in a real browser, and as one file."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from temper.dashboard import rollout_chart
from temper.dashboard.rollouts import standalone
from temper.dashboard.router import OPEN_PATHS, create_router
from temper.fleet.controller import Controller
from temper.fleet.plan import Guardrail, Plan
from temper.fleet.store import Store, url_of
from temper.fleet.turns import Turn
from temper.server import ServerSettings, create_app
from tests.dashboard.browser import Browser
from tests.dashboard.serving import API_KEY, ScriptedEngine
from tests.fleet.stores import dispatch, fake, served

PLAN = Plan(
    steps=(0.25, 0.5, 1.0),
    min_requests=60,
    min_s=0.0,
    guardrails=(
        Guardrail(metric="errors", tolerance=0.2, proven=True),
        Guardrail(metric="e2e", tolerance=0.2),
    ),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a rollout that was promoted, another that runs, and a turn of the loop."""
    folder = tmp_path_factory.mktemp("home")
    rng = random.Random(1)
    with Store(url_of(folder)) as store:
        base = served(store)
        better = store.versions.add(fake(seed=1), {}, origin="study", source="s-1", parent=base, note="<b>fast</b>")
        id = store.rollouts.start("default", better.id, PLAN).id
        controller = Controller(store, "test")
        number = 0
        while store.rollouts.find(id).state == "running":
            share = store.rollouts.find(id).share
            with store.database.transaction():
                for _ in range(20):
                    number += 1
                    arm = "candidate" if rng.random() < share else "control"
                    dispatch(store, id, number, arm, share, e2e_ms=100 * rng.lognormvariate(0, 0.2), quality=1.0)
            controller.tick()
            assert number < 4000
        store.rollouts.start("default", base, PLAN)
        turn = Turn("default")
        store.turns.open(turn)
        turn.say("Prompts <i>grew</i>.")
        turn.outcome = "promoted"
        store.turns.keep(turn)
    return folder


def rollouts(home: Path) -> dict[str, str]:
    with Store(url_of(home)) as store:
        return {one.state: one.id for one in store.rollouts.all()}


def serving(home: Path | None, *keys: str) -> TestClient:
    settings = ServerSettings(api_keys=keys, open_paths=OPEN_PATHS)
    return TestClient(create_app(ScriptedEngine(), extensions=[create_router(home=home)], settings=settings))


def test_the_list_and_a_rollout_are_served(home: Path) -> None:
    found = rollouts(home)
    with serving(home) as client:
        assert 'hx-get="/dashboard/rollouts"' in client.get("/rollouts").text
        listed = client.get("/dashboard/rollouts").text
        assert listed.index(found["running"]) < listed.index(found["promoted"])
        assert "Prompts &lt;i&gt;grew&lt;/i&gt;." in listed
        shown = client.get(f"/dashboard/rollouts/{found['promoted']}")
        assert shown.text.count("<svg") == 3  # errors, e2e, wrong
        assert "study s-1: &lt;b&gt;fast&lt;/b&gt;" in shown.text
        assert "Promoted: shown" in shown.text
        assert "style=" not in shown.text  # the policy forbids it
        assert "script-src 'self'" in shown.headers["content-security-policy"]
        assert client.get("/dashboard/rollouts/none").status_code == 404


def test_figures_are_behind_the_key_and_looking_makes_no_store(home: Path, tmp_path: Path) -> None:
    with serving(home, API_KEY) as client:
        assert client.get("/rollouts").status_code == 200
        assert client.get("/dashboard/rollouts").status_code == 401
    with serving(tmp_path) as client:
        assert "No rollout yet" in client.get("/dashboard/rollouts").text
        assert client.get("/dashboard/rollouts/x").status_code == 404
    assert list(tmp_path.iterdir()) == []


def test_one_file_needs_no_network(home: Path) -> None:
    with Store(url_of(home)) as store:
        text = standalone(store, rollouts(home)["promoted"])
    assert text.startswith("<!doctype html>")
    assert not re.search(r'(src|href)="|url\(|<script|@import', text)


def test_an_interval_without_an_end_fills_the_height() -> None:
    looks = [
        {"num_requests": n, "at": 0.0, "share": 0.5, "e2e": [0.1, None if n < 20 else -0.2, None if n < 20 else 0.3]}
        for n in range(10, 40, 10)
    ]
    chart = str(rollout_chart.narrowing(looks, "e2e", 0.1))
    assert 'aria-label="e2e after 30 units: +10 % (-20 % … +30 %)"' in chart
    assert "nan" not in chart
    assert rollout_chart.narrowing(looks, "ttft", None) == ""


def test_shares_are_named_where_there_is_room() -> None:
    shares = [(10, 0.25), (20, 0.5), (2000, 1.0), (4000, 1.0)]
    looks = [{"num_requests": n, "at": 0.0, "share": share, "e2e": [0.0, -0.1, 0.1]} for n, share in shares]
    chart = str(rollout_chart.narrowing(looks, "e2e", None))
    assert chart.count('class="step"') == 3
    assert [share in chart for share in (">25%<", ">50%<", ">100%<")] == [False, True, True]


def test_the_file_draws_in_a_real_browser(home: Path, tmp_path: Path, browser: Browser) -> None:
    file = tmp_path / "rollout.html"
    with Store(url_of(home)) as store:
        file.write_text(standalone(store, rollouts(home)["promoted"]), "utf-8")
    page = browser.new_page()
    page.goto(file.as_uri())
    bands = page.evaluate("[...document.querySelectorAll('svg .band')].map((b) => b.getBoundingClientRect().height)")
    assert len(bands) >= 3
    assert min(bands) > 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.console == []
    page.close()
