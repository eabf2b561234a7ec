"""What makes an answer sane, and when two answers agree."""

from __future__ import annotations

import pytest

from temper.asking import Answer, Sample
from temper.fleet.quality import agrees, is_sane, likeness
from temper.types import Delta, Done, Finished, Request, Usage

ASKED = Request("r", prompt="x")
JSON = Request("r", prompt="x", response_format={"type": "json_object"})


def said(text: str, **fields) -> Answer:
    return Answer([Sample(text=text, **fields)])


@pytest.mark.parametrize(
    ("request_", "answer", "sane"),
    [
        (ASKED, said("Three rivers: Rhine, Nile, Amazon."), True),
        (ASKED, said("", reasoning="Let me see."), True),
        (ASKED, said("一二三四五六七八九十"), True),
        (ASKED, said("a\n\tb"), True),
        (ASKED, said("  \n"), False),
        (ASKED, said("broken \ufffd bytes"), False),
        (ASKED, said("\x00"), False),
        (ASKED, said("half a </think> tag"), False),
        (ASKED, said("on and on " * 20), False),
        (JSON, said('{"a": 1}', finish_reason="stop"), True),
        (JSON, said("{a: 1", finish_reason="stop"), False),
        (JSON, said("{a: 1", finish_reason="length"), True),
    ],
)
def test_signs_of_something_broken(request_, answer, sane):
    assert is_sane(request_, answer) is sane


def test_likeness_is_of_words_in_order():
    assert likeness("a b c", "a b c") == 1.0
    assert likeness("a b c d", "a b x d") == 0.75
    assert likeness("a b", "c d") == 0.0


@pytest.mark.parametrize(
    ("again", "agree"), [("one two three", True), ("one two four", True), ("quite another", False)]
)
async def test_the_incumbent_is_asked_the_same_again(again, agree):
    asked = []

    async def incumbent(request):
        asked.append(request)
        yield Delta(0, again)
        yield Finished(0, "stop")
        yield Done(Usage())

    assert await agrees(ASKED, said("one two three"), incumbent) is agree
    assert asked[0].prompt == "x"
    assert asked[0].id != "r"
