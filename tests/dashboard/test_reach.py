"""The playground for everybody: by keyboard, by screen reader, in Chinese, on a phone."""

from __future__ import annotations

import pytest

from tests.dashboard.asking import ANSWER, IDLE, ask
from tests.dashboard.browser import SHIFT, Page
from tests.dashboard.conftest import OpenPage
from tests.dashboard.serving import MODEL, Serving


def test_shift_enter_makes_a_line_and_enter_sends(page: Page, server: Serving) -> None:
    page.evaluate("document.getElementById('question').focus()")
    page.type("one")
    page.press("Enter", SHIFT)
    page.type("two")
    assert server.bodies == []
    page.press("Enter")
    page.wait_for(IDLE)
    assert server.bodies[0]["messages"][0]["content"] == "one\ntwo"


def test_enter_that_chooses_a_chinese_word_does_not_send(page: Page, server: Serving) -> None:
    page.evaluate("document.getElementById('question').focus()")
    page.call("Input.imeSetComposition", {"text": "ni hao", "selectionStart": 6, "selectionEnd": 6})
    page.evaluate(
        """document.activeElement.dispatchEvent(
             new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true }))"""
    )
    page.type("你好")
    page.pause(0.1)
    assert server.bodies == []
    page.press("Enter")
    page.wait_for(IDLE)
    assert server.bodies[0]["messages"][0]["content"] == "你好"


def test_chinese_arrives_and_is_shown_whole(page: Page) -> None:
    ask(page, "chinese")
    assert page.text(ANSWER) == "你好，世界。这是一个测试。"
    assert "�" not in page.evaluate("document.body.innerText")


def test_every_control_can_be_reached_and_named(page: Page) -> None:
    unnamed = page.evaluate(
        """[...document.querySelectorAll("input, select, textarea, button")].filter((element) =>
             !(element.labels?.length || element.getAttribute("aria-label") || element.textContent.trim())
           ).map((element) => element.outerHTML)"""
    )
    assert unnamed == []
    seen = []
    for _ in range(12):
        page.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert "send" in seen or "Send" in "".join(seen)


def test_progress_is_told_to_screen_readers(page: Page) -> None:
    assert page.evaluate("document.getElementById('announce').getAttribute('role')") == "status"
    ask(page, "hello")
    assert page.evaluate("document.getElementById('announce').textContent").startswith("Answer complete. You said")
    assert page.evaluate("document.querySelector('.answer').getAttribute('aria-busy')") == "false"


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1280])
def test_nothing_overflows_at_any_width(open_page: OpenPage, width: int) -> None:
    page = open_page(width=width, height=740, mobile=width < 800)
    ask(page, "markdown")
    ask(page, "think")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.documentElement.scrollHeight") == 740
    assert page.evaluate("document.getElementById('send').getBoundingClientRect().right") < width


def test_on_a_phone_the_panels_are_drawers(open_page: OpenPage, server: Serving) -> None:
    page = open_page(width=390, height=844, mobile=True)
    shown = "getComputedStyle(document.getElementById('{}')).display !== 'none'"
    assert not page.evaluate(shown.format("settings"))
    assert not page.evaluate(shown.format("live"))
    page.click("[data-panel=settings]")
    assert page.evaluate(shown.format("settings"))
    page.fill("#temperature", "0.3")
    page.click("[data-close=settings]")
    assert not page.evaluate(shown.format("settings"))
    page.click("[data-panel=live]")
    page.wait_for("document.querySelector('#live canvas').getBoundingClientRect().width > 200")
    page.press("Escape")
    assert not page.evaluate(shown.format("live"))
    ask(page, "hello")
    assert server.bodies[0]["temperature"] == 0.3
    assert server.bodies[0]["model"] == MODEL
