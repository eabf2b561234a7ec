"""What a model writes is untrusted: it stays text, it cannot run, and it cannot make the page slow."""

from __future__ import annotations

import json

import pytest

from tests.dashboard.asking import ANSWER, ask
from tests.dashboard.browser import Page
from tests.dashboard.serving import XSS


def test_markup_in_an_answer_stays_text(page: Page) -> None:
    ask(page, "xss")
    assert page.text(ANSWER) == XSS
    assert page.evaluate("document.querySelectorAll('.answer img, .answer script, .answer a').length") == 0
    page.reload()
    page.pause(0.2)
    assert page.text(ANSWER) == XSS
    assert page.evaluate("window.pwned") is None


def test_markup_in_a_question_stays_text(page: Page) -> None:
    ask(page, XSS)
    assert page.text(".user .bubble") == XSS
    assert page.evaluate("window.pwned") is None


def test_markdown_is_drawn(page: Page) -> None:
    ask(page, "markdown")
    page.wait_for(f"document.querySelector('{ANSWER} blockquote') !== null")
    shape = page.evaluate(f"[...document.querySelectorAll('{ANSWER} *')].map((e) => e.localName).join(' ')")
    for tags in (
        "h3",
        "p strong em code span a small",
        "ul li li ol li",
        "pre code",
        "tr th th tr td td",
        "blockquote",
    ):
        assert tags in shape.replace("table tbody ", "table ")
    assert page.text(f"{ANSWER} pre") == 'print("<b>not bold</b>")'
    assert page.evaluate(f"document.querySelector('{ANSWER} a').rel") == "noopener noreferrer nofollow"
    assert page.text(f"{ANSWER} small").strip() == "(example.org)", "a link says where it goes"


def test_hostile_markdown_is_drawn_in_time(page: Page) -> None:
    took = page.evaluate(
        """(async () => {
          const { renderMarkdown } = await import("/dashboard/static/js/markdown.js");
          const took = [];
          for (const piece of ["*a ", "**", "[", "`", "> ", "- ", "|-|\\n", "  - a\\n", "http://", "~~", "1. > "]) {
            const began = performance.now();
            renderMarkdown(document.createElement("div"), piece.repeat(6000));
            took.push([piece, performance.now() - began]);
          }
          return took;
        })()"""
    )
    assert {piece: ms for piece, ms in took if ms > 1500} == {}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_whatever_the_pieces_they_come_in(page: Page, size: int) -> None:
    stream = (
        ': hi\r\n\r\ndata: {"a": "你好"}\r\n\r\ndata: one\ndata: two\n\ndata:[DONE]\n\nevent: x\nid: 1\ndata: last\n\n'
    )
    found = page.evaluate(
        f"""(async () => {{
          const {{ readEvents }} = await import("/dashboard/static/js/events.js");
          const bytes = new TextEncoder().encode({json.dumps(stream)});
          const body = new ReadableStream({{ start(controller) {{
            for (let at = 0; at < bytes.length; at += {size}) controller.enqueue(bytes.slice(at, at + {size}));
            controller.close();
          }} }});
          const found = [];
          for await (const event of readEvents(new Response(body))) found.push(event.data ?? "#" + event.comment);
          return found;
        }})()"""
    )
    assert found == ["#hi", '{"a": "你好"}', "one\ntwo", "[DONE]", "last"]


def test_an_inline_script_would_not_run(page: Page) -> None:
    page.evaluate(
        """(() => {
          const script = document.createElement("script");
          script.textContent = "window.pwned = 1";
          document.body.append(script);
        })()"""
    )
    page.pause(0.1)
    assert page.evaluate("window.pwned") is None
    refused = [entry for entry in page.console if "Content Security Policy" in entry]
    assert refused
    page.console.clear()
