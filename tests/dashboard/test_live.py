"""The live figures in a real browser: numbers that move and charts that draw."""

from __future__ import annotations

from tests.dashboard.asking import IDLE, ask
from tests.dashboard.browser import Page
from tests.dashboard.conftest import OpenPage
from tests.dashboard.serving import MODEL, Serving

COLOURED_PIXELS = """[...document.querySelectorAll("#live canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let coloured = 0;
  for (let at = 0; at < data.length; at += 4) {
    const [r, g, b, a] = data.subarray(at, at + 4);
    if (a > 128 && Math.max(r, g, b) - Math.min(r, g, b) > 60) coloured += 1;
  }
  return coloured;
})"""


def figure(page: Page, name: str) -> str:
    return str(page.evaluate(f"document.querySelector('[data-figure={name}]').textContent"))


def test_figures_move_and_charts_draw(page: Page) -> None:
    page.wait_for("document.querySelector('[data-figure=running]').textContent === '0'")
    ask(page, "endless", wait=False)
    page.wait_for("document.querySelector('[data-figure=running]').textContent === '1'")
    page.wait_for("parseFloat(document.querySelector('[data-figure=tokens_per_s]').textContent) > 10")
    assert figure(page, "kv_usage") == "25 %"
    assert figure(page, "prefix_hit_rate") == "50 %"
    page.press("Escape")
    page.wait_for(IDLE)
    page.wait_for("document.querySelector('[data-figure=running]').textContent === '0'")
    assert figure(page, "kv_usage") == "0 %"
    ask(page, "hello")
    page.wait_for("/\\d+ ms/.test(document.querySelector('[data-figure=ttft]').textContent)")
    page.pause(1.2)
    drawn = page.evaluate(COLOURED_PIXELS)
    assert len(drawn) == 5
    assert min(drawn) > 0, f"coloured pixels of each chart: {drawn}"


def test_a_page_opened_later_already_has_the_past(page: Page, open_page: OpenPage) -> None:
    ask(page, "hello")
    page.pause(2.2)
    samples = page.evaluate("fetch('/dashboard/live').then((r) => r.json()).then((b) => b.samples.length)")
    assert samples >= 3
    later = open_page()
    later.wait_for("document.querySelector('[data-figure=running]').textContent !== '–'")
    assert sum(later.evaluate(COLOURED_PIXELS)) > 0


def test_charts_follow_the_colour_scheme(page: Page) -> None:
    page.wait_for("document.querySelectorAll('#live canvas').length === 5")
    light = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--blue')")
    page.prefer(dark=True)
    page.pause(0.3)
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--blue')") != light
    assert page.evaluate("document.querySelectorAll('#live canvas').length") == 5


def test_charts_say_their_values_to_screen_readers(page: Page) -> None:
    page.wait_for("document.querySelector('[data-chart=requests] .plot').ariaLabel.includes('now:')")
    label = page.evaluate("document.querySelector('[data-chart=requests] .plot').ariaLabel")
    assert label == "Requests, now: running 0, waiting 0"


def test_the_header_says_whether_the_server_is_ready(open_page: OpenPage, server: Serving) -> None:
    page = open_page()
    page.wait_for(f"document.getElementById('status').innerText.includes('Ready · {MODEL}')")
    server.engine.ready = False
    page.evaluate("htmx.ajax('GET', '/dashboard/status', '#status')")
    page.wait_for("document.getElementById('status').innerText.includes('Not ready · scripted: no step for 12 s')")
