"""Thumbs under an answer: kept by the server, shown as pressed, taken back by the same thumb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from temper.measure.quality.ratings import FILE, Ratings
from tests.dashboard.asking import ask
from tests.dashboard.browser import Page
from tests.dashboard.conftest import OpenPage
from tests.dashboard.serving import MODEL, Serving

PRESSED = "[...document.querySelectorAll('.thumb')].map(thumb => thumb.getAttribute('aria-pressed')).join()"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def keeping(home: Path) -> Iterator[Serving]:
    server = Serving(home=home)
    yield server
    server.stop()


def test_an_answer_is_rated_and_the_rating_taken_back(open_page: OpenPage, keeping: Serving, home: Path) -> None:
    page = open_page(keeping.url)
    ask(page, "hello there")
    page.click("[data-part=good]")
    page.wait_for(f"{PRESSED} === 'true,false'")
    (row,) = Ratings(home / FILE).all()
    assert (row["model"], row["rating"], row["answer"]) == (MODEL, "good", "You said: hello there and I agree.")
    assert row["messages"] == [{"role": "user", "content": "hello there"}]
    assert row["answer_id"].startswith("chatcmpl-")
    page.click("[data-part=bad]")
    page.wait_for(f"{PRESSED} === 'false,true'")
    assert [row["rating"] for row in Ratings(home / FILE).all()] == ["bad"]
    page.click("[data-part=bad]")
    page.wait_for(f"{PRESSED} === 'false,false'")
    assert Ratings(home / FILE).all() == []


def test_a_server_that_keeps_nothing_shows_no_thumbs(page: Page) -> None:
    ask(page, "hello there")
    assert page.evaluate("document.querySelectorAll('.thumb').length") == 0
