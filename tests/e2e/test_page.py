"""The page as a new user meets it: `temper serve` on the default model, in a real browser."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashboard.asking import ANSWER, FIGURES, IDLE, TROUBLE, ask
from tests.dashboard.browser import Browser, Page
from tests.dashboard.conftest import browser as browser  # the fixture
from tests.e2e.conftest import Server, serving, wait_until


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    page = browser.new_page()
    page.goto(server.url + "/")
    yield page
    page.close()
    assert page.outside_requests() == []
    assert page.console == []
    assert page.failed_requests == []


def test_a_question_is_answered_by_the_model(page: Page) -> None:
    page.wait_for("document.getElementById('status').innerText.startsWith('Ready')")
    page.fill("#temperature", "0")
    page.fill("#max_tokens", "40")
    ask(page, "What is the capital of France?", wait=False)
    page.wait_for(IDLE, 60)
    assert len(page.text(ANSWER).split()) > 3, page.text(TROUBLE)
    assert " tokens/s · first token " in page.text(FIGURES)
    page.wait_for("parseFloat(document.querySelector('[data-chart=throughput] .legend b').textContent) >= 0")


def test_every_setting_is_one_that_the_server_knows(page: Page) -> None:
    """The page and the server's schema agree on each name: what one sends, the other takes."""
    fields = {"preset": "code", "top_p": "0.9", "top_k": "40", "min_p": "0.05", "max_tokens": "8", "seed": "7"}
    fields |= {"repetition_penalty": "1.1", "no_repeat_ngram_size": "3", "presence_penalty": "0.1"}
    fields |= {"frequency_penalty": "0.1", "schedule_kind": "paragraph", "stop_strings": "END"}
    for name, value in fields.items():
        page.fill(f"#{name}", value)
    page.evaluate("document.getElementById('graceful_end').checked = true")
    ask(page, "Count to three.", wait=False)
    page.wait_for(IDLE, 60)
    assert page.evaluate("document.querySelector('.answer [data-part=trouble]').hidden"), page.text(TROUBLE)
    assert page.text(ANSWER)


def test_stopping_frees_the_engine(page: Page, server: Server) -> None:
    page.fill("#max_tokens", "4000")
    page.fill("#temperature", "1")
    ask(page, "Write a very long story about a ship, chapter after chapter.", wait=False)
    page.wait_for(f"document.querySelector('{ANSWER}')?.innerText.length > 40", 60)
    page.press("Escape")
    page.wait_for(IDLE)
    wait_until(lambda: server.metric("vllm:num_requests_running") == 0, 1.0, "the engine let go of the stopped answer")


def test_an_open_page_does_not_hold_up_the_end(browser: Browser, tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        page = browser.new_page()
        page.goto(server.url + "/")
        page.pause(2)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(20)
        assert time.monotonic() - began < 10
        page.wait_for("document.getElementById('live').classList.contains('stale')", 10)
        page.close()
