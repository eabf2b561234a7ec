from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.engines.native.stops import StopMatcher
from temper.engines.native.thinking import ThinkSplitter

OPEN, CLOSE = "<think>", "</think>"
BITS = st.lists(
    st.sampled_from([OPEN, CLOSE, "<", "</", "think>", "<thi", "nk>", " ", "\n\n", "a", "b c", "。", "<b>"]),
    max_size=12,
).map("".join)


def split(pieces: list[str], opened: bool) -> tuple[str, str, ThinkSplitter]:
    splitter = ThinkSplitter(OPEN, CLOSE, opened=opened)
    found = [p for piece in pieces for p in splitter.push(piece)] + splitter.flush()
    assert splitter.num_held == 0
    texts = {side: "".join(t for s, t in found if s == side) for side in ("reasoning", "answer")}
    return texts["reasoning"], texts["answer"], splitter


def cut(text: str, data: st.DataObject) -> list[str]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.parametrize(("text", "opened", "reasoning", "answer"), [
    ("plain", False, "", "plain"),
    ("  plain", False, "", "  plain"),
    ("<think>a</think>b", False, "a", "b"),
    ("<think>\na \n</think>\n\nb ", False, "a", "b "),
    ("\n<think>a</think>b", False, "a", "b"),
    ("a</think>b", True, "a", "b"),
    ("<think>a</think>b", True, "a", "b"),
    ("never closed", True, "never closed", ""),
    ("<think>never closed", False, "never closed", ""),
    ("a</think>b</think>c", True, "a", "bc"),
    ("a</think></think>c", True, "a", "c"),
    ("</think>b", True, "", "b"),
    ("b</think>c", False, "", "bc"),
    ("answer with <think> inside", False, "", "answer with <think> inside"),
    ("<thi", False, "", "<thi"),
    ("a</thi", True, "a</thi", ""),
    ("", True, "", ""),
])  # fmt: skip
def test_whole_texts(text: str, opened: bool, reasoning: str, answer: str):
    assert split([text], opened)[:2] == (reasoning, answer)
    assert split(list(text), opened)[:2] == (reasoning, answer)


@given(BITS, st.booleans(), st.data())
def test_any_pieces_give_the_same_as_the_whole(text: str, opened: bool, data: st.DataObject):
    whole = split([text], opened)[:2]
    assert split(cut(text, data), opened)[:2] == whole
    assert split(list(text), opened)[:2] == whole


def test_what_is_certain_is_not_held_back():
    splitter = ThinkSplitter(OPEN, CLOSE, opened=True)
    assert splitter.push("I think") == [("reasoning", "I think")]
    assert splitter.push(" so \n") == [("reasoning", " so")]
    assert splitter.push("</th") == []
    assert splitter.push("ink>\n") == []
    assert splitter.push("Yes") == [("answer", "Yes")]


STRINGS = st.lists(st.text("ab。", min_size=1, max_size=4), min_size=1, max_size=4).map(tuple)


@given(st.text("ab。", max_size=30), STRINGS, st.data())
def test_stops_do_not_depend_on_pieces(text: str, strings: tuple[str, ...], data: st.DataObject):
    def run(pieces: list[str]) -> tuple[str, str | None]:
        matcher = StopMatcher(strings)
        found = "".join(matcher.push(piece) for piece in pieces) + matcher.flush()
        return found, matcher.matched

    found, matched = run([text])
    assert run(cut(text, data)) == (found, matched)
    assert run(list(text)) == (found, matched)
    if matched is None:
        assert found == text
        assert not any(s in text for s in strings)
    else:
        assert text.startswith(found + matched)
    assert not any(s in found for s in strings)


def test_a_stop_string_is_held_back_until_decided():
    matcher = StopMatcher(("END", "\n\n"))
    assert matcher.push("a E") == "a "
    assert matcher.push("N") == ""
    assert matcher.push("T\n") == "ENT"
    assert matcher.num_held == 1
    assert matcher.push("\nrest") == ""
    assert matcher.matched == "\n\n"
    assert matcher.push("more") == ""
