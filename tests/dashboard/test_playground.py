"""The playground in a real browser: what a person does, what they see, and what reaches the server."""

from __future__ import annotations

import pytest

from tests.dashboard.asking import ANSWER, FIGURES, IDLE, TROUBLE, ask
from tests.dashboard.browser import Page
from tests.dashboard.conftest import OpenPage
from tests.dashboard.serving import API_KEY, MARKDOWN, MODEL, Serving

WATCH_THE_TEXT_GROW = """
window.grown = [];
new MutationObserver(() => {
  const text = document.querySelector(".answer .markdown")?.innerText;
  if (text && text !== window.grown.at(-1)?.[0]) window.grown.push([text, document.getElementById("stop").hidden]);
}).observe(document.body, { subtree: true, childList: true, characterData: true }) ?? true
"""
"""The page itself notes every new state of the answer, and whether the stop button was there: a busy machine may be too
late to look."""


def test_a_question_streams_an_answer_with_its_figures(page: Page, server: Serving) -> None:
    page.evaluate(WATCH_THE_TEXT_GROW)
    ask(page, "hello there")
    assert page.evaluate("window.grown.length") > 1
    first, stop_is_hidden = page.evaluate("window.grown[0]")
    assert "You said: hello there and I agree.".startswith(first)
    assert stop_is_hidden is False, "still streaming"
    assert page.text(".user .bubble") == "hello there"
    assert page.text(ANSWER) == "You said: hello there and I agree."
    figures = page.text(FIGURES)
    for part in (" tokens/s", "first token ", "7 tokens in ", "10 of 20 cached"):
        assert part in figures
    body = server.bodies[0]
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["messages"] == [{"role": "user", "content": "hello there"}]
    assert set(body) - {"model"} == {"messages", "stream", "stream_options"}, "untouched settings are not sent"


def test_the_next_question_carries_the_conversation(page: Page, server: Serving) -> None:
    ask(page, "think")
    ask(page, "again")
    assert server.bodies[1]["messages"] == [
        {"role": "user", "content": "think"},
        {"role": "assistant", "content": "Forty-two."},
        {"role": "user", "content": "again"},
    ]


def test_thinking_is_folded_and_unfolds(page: Page) -> None:
    ask(page, "think")
    assert page.text(ANSWER) == "Forty-two."
    assert page.evaluate("document.querySelector('.thinking').open") is False
    summary = page.text(".thinking summary")
    assert summary.startswith("Thought for ")
    assert summary.endswith(" · 3 tokens")
    page.click(".thinking summary")
    page.wait_for("document.querySelector('.thinking-text').innerText === 'Let me see.'")
    page.click(".thinking summary")
    page.wait_for("!document.querySelector('.thinking').open")


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stopping_ends_the_work_on_the_server(page: Page, server: Serving, how: str) -> None:
    ask(page, "endless", wait=False)
    page.wait_for("document.querySelector('.answer .markdown')?.innerText.includes('word3')")
    if how == "button":
        page.click("#stop")
    else:
        page.press("Escape")
    page.wait_for(IDLE)
    assert server.engine.cancelled.wait(3), "the server never saw the cancel"
    assert "stopped by you" in page.text(FIGURES)
    assert page.text(ANSWER).startswith("word0 word1 word2")
    ask(page, "after")
    assert page.text(ANSWER) == "You said: after and I agree."


def test_controls_reach_the_request(page: Page, server: Serving) -> None:
    values = {
        "system": "Be brief.",
        "temperature": "0.75",
        "top_p": "0.9",
        "top_k": "40",
        "min_p": "0.05",
        "max_tokens": "99",
        "seed": "7",
        "repetition_penalty": "1.2",
        "no_repeat_ngram_size": "3",
        "presence_penalty": "0.5",
        "frequency_penalty": "-0.5",
        "schedule_kind": "cosine",
        "schedule_start": "1.2",
        "schedule_end": "0.3",
        "schedule_steps": "32",
        "effort": "low",
        "budget_tokens": "128",
        "stop_strings": "END",
        "preset": "code",
    }
    page.wait_for(f"document.getElementById('model').value === '{MODEL}'")
    for name, value in values.items():
        page.fill(f"#{name}", value)
    page.evaluate("document.querySelectorAll('.more').forEach((more) => { more.open = true })")
    page.click("#graceful_end")
    ask(page, "hello")
    body = server.bodies[0]
    assert body.pop("messages")[0] == {"role": "system", "content": "Be brief."}
    del body["stream"], body["stream_options"]
    assert body == {
        "model": MODEL,
        "preset": "code",
        "temperature": 0.75,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "max_tokens": 99,
        "seed": 7,
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "temperature_schedule": {"kind": "cosine", "start": 1.2, "end": 0.3, "steps": 32},
        "reasoning_effort": "low",
        "thinking": {"type": "enabled", "budget_tokens": 128},
        "stop": ["END"],
        "graceful_end": True,
    }


def test_a_schedule_may_be_a_list_and_a_wrong_one_is_not_sent(page: Page, server: Serving) -> None:
    page.fill("#schedule_kind", "list")
    page.fill("#schedule_values", "1.0, warm")
    ask(page, "hello")
    assert "write numbers with commas" in page.text(TROUBLE)
    assert server.bodies == []
    page.fill("#schedule_values", "1.0, 0.8，0.6")
    page.click(".answer.last [data-part=retry]")
    page.wait_for(f"{IDLE} && document.querySelector('.answer.last .markdown').innerText")
    assert server.bodies[0]["temperature_schedule"] == {"kind": "list", "values": [1.0, 0.8, 0.6]}


def test_a_setting_outside_its_limits_is_named_before_anything_is_sent(page: Page, server: Serving) -> None:
    page.fill("#top_p", "1.5")
    ask(page, "hello")
    assert page.text(TROUBLE).startswith("Top-p: ")
    assert server.bodies == []


def test_a_preset_shows_what_it_sets(page: Page, server: Serving) -> None:
    page.fill("#preset", "anti-repetition")
    assert page.evaluate("document.getElementById('temperature').placeholder") == "0.9"
    assert page.evaluate("document.getElementById('top_k').placeholder") == "50"
    assert page.evaluate("document.getElementById('max_tokens').placeholder") == "256"
    assert "circles" in page.text("#preset-help")
    page.click("#controls button[type=reset]")
    page.wait_for("document.getElementById('temperature').placeholder === 'auto'")


def test_regenerate_asks_the_same_again(page: Page, server: Serving) -> None:
    ask(page, "first")
    ask(page, "second")
    page.click(".answer.last [data-part=regenerate]")
    page.wait_for("document.getElementById('stop').hidden === false")
    page.wait_for(IDLE)
    assert len(server.bodies) == 3
    assert server.bodies[2] == server.bodies[1]
    assert page.evaluate("document.querySelectorAll('.message').length") == 4


def test_copy_puts_the_answer_on_the_clipboard(page: Page) -> None:
    ask(page, "markdown")
    page.evaluate("window.copied = []; navigator.clipboard.writeText = async (text) => { window.copied.push(text) }")
    page.click(".answer [data-part=copy]")
    page.click(".answer .code button")
    page.wait_for("window.copied.length === 2")
    assert page.evaluate("window.copied") == [MARKDOWN, 'print("<b>not bold</b>")']
    assert page.text(".answer [data-part=copy]") == "Copied"


def test_the_conversation_and_the_settings_survive_a_reload(page: Page) -> None:
    page.fill("#temperature", "0.4")
    ask(page, "think")
    page.reload()
    assert page.text(ANSWER) == "Forty-two."
    assert page.evaluate("document.getElementById('temperature').value") == "0.4"
    page.click("#clear")
    assert page.evaluate("document.querySelectorAll('.message').length") == 0
    page.reload()
    assert page.evaluate("document.querySelectorAll('.message').length") == 0


def test_another_tab_starts_empty(page: Page, open_page: OpenPage) -> None:
    ask(page, "hello")
    assert open_page().evaluate("document.querySelectorAll('.message').length") == 0


@pytest.mark.parametrize(
    ("asked", "words", "can_retry"),
    [
        ("busy", "The server is busy: too many requests are waiting. Try again in 7 s.", True),
        ("bad", "did not accept this request (field: temperature). 'temperature' must be at most 5, but is 9.", False),
        ("long", "The conversation is too long for this model.", False),
        ("broken", "The answer was cut off: The engine died.", True),
        ("cut", "The connection ended before the answer was complete.", True),
    ],
)
def test_errors_are_told_in_plain_words(page: Page, asked: str, words: str, can_retry: bool) -> None:
    page.may_fail_requests = True
    ask(page, asked)
    assert words in page.text(TROUBLE)
    assert page.evaluate("!document.querySelector('.answer [data-part=retry]').hidden") is can_retry
    assert page.evaluate("document.querySelector('.answer [data-part=trouble]').getAttribute('role')") == "alert"
    if asked in ("broken", "cut"):
        assert page.text(ANSWER) == f"You said: {asked} and I agree.", "what arrived is kept"


def test_a_server_that_is_gone_is_told_in_plain_words(page: Page) -> None:
    page.may_fail_requests = True
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.call("Network.emulateNetworkConditions", offline)
    ask(page, "hello")
    assert "The server can't be reached" in page.text(TROUBLE)
    page.wait_for("document.getElementById('live').classList.contains('stale')")
    page.evaluate("htmx.trigger('#status', 'key-changed')")
    page.evaluate("document.body.dispatchEvent(new Event('key-changed'))")
    page.wait_for("document.getElementById('status').innerText.includes(\"Can't reach the server\")")


def test_an_api_key_is_asked_for_and_kept_in_the_tab_only(guarded_server: Serving, open_page: OpenPage) -> None:
    page = open_page(guarded_server.url)
    page.may_fail_requests = True
    page.wait_for("document.getElementById('key-dialog').open")
    page.type("wrong")
    page.press("Enter")
    page.wait_for("document.getElementById('key-dialog').open && !document.getElementById('key-error').hidden")
    page.type(API_KEY)
    page.press("Enter")
    page.wait_for("!document.getElementById('key-dialog').open")
    page.wait_for("document.getElementById('status').innerText.includes('Ready')")
    ask(page, "hello")
    assert page.text(ANSWER) == "You said: hello and I agree."
    assert page.evaluate("sessionStorage.getItem('temper.key')") == API_KEY
    assert page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
    late = "{xhr: {status: 401}, requestConfig: {headers: {Authorization: 'Bearer wrong'}}}"
    page.evaluate(f"document.body.dispatchEvent(new CustomEvent('htmx:responseError', {{detail: {late}}}))")
    assert page.evaluate("document.getElementById('key-dialog').open") is False, "a late refusal of the first key"
    page.reload()
    page.wait_for("document.getElementById('status').innerText.includes('Ready')")
    assert page.evaluate("document.getElementById('key-dialog').open") is False


def test_whoever_declines_the_key_is_asked_again_when_sending(guarded_server: Serving, open_page: OpenPage) -> None:
    page = open_page(guarded_server.url)
    page.may_fail_requests = True
    page.wait_for("document.getElementById('key-dialog').open")
    page.press("Escape")
    page.pause(1.5)
    assert page.evaluate("document.getElementById('key-dialog').open") is False, "polling does not nag"
    ask(page, "hello", wait=False)
    page.wait_for("document.getElementById('key-dialog').open")
    page.type(API_KEY)
    page.press("Enter")
    page.wait_for(IDLE)
    assert page.text(ANSWER) == "You said: hello and I agree."
