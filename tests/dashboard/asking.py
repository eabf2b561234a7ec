"""Asking on the playground, as a person does it, and where on the page the answer is."""

from __future__ import annotations

from tests.dashboard.browser import Page

IDLE = "!document.getElementById('send').hidden && document.querySelectorAll('.answer').length"
ANSWER = ".answer .markdown"
FIGURES = ".answer [data-part=figures]"
TROUBLE = ".answer [data-part=trouble]"


def ask(page: Page, text: str, *, wait: bool = True) -> None:
    """Type a question and press Enter; unless told otherwise, wait for the end of the answer."""
    page.evaluate("document.getElementById('question').focus()")
    page.type(text)
    page.press("Enter")
    if wait:
        page.wait_for(IDLE)
