from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.dashboard.browser import Browser, Page, find_chromium
from tests.dashboard.serving import API_KEY, Serving

OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("no chromium on this machine: the page can't be tested (Debian: apt-get install chromium)")
    browser = Browser(executable)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def open_server() -> Iterator[Serving]:
    server = Serving()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def guarded_server() -> Iterator[Serving]:
    server = Serving(api_keys=(API_KEY,))
    yield server
    server.stop()


@pytest.fixture
def server(open_server: Serving) -> Serving:
    """A server without keys, as if just started."""
    open_server.reset()
    return open_server


@pytest.fixture
def open_page(browser: Browser, server: Serving) -> Iterator[OpenPage]:
    """Opens the playground; afterwards, insists that nothing left the machine and nothing went wrong unseen."""
    opened: list[Page] = []

    def open_one(url: str = server.url, **options: Any) -> Page:
        page = browser.new_page(**options)
        opened.append(page)
        page.goto(url + "/")
        return page

    yield open_one
    for page in opened:
        page.pause(0.05)
        page.close()
        assert page.requests, "the browser reported no requests: nothing was watched"
        assert page.outside_requests() == []
        assert page.console == []
        assert page.may_fail_requests or page.failed_requests == []


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page()
