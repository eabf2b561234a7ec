from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.engines.native.endings import EndingWatch, LoopGuard


def complete(text: str) -> bool:
    watch = EndingWatch()
    for char in text:
        watch.push(char)
    whole = EndingWatch()
    whole.push(text)
    assert whole.complete == watch.complete
    return watch.complete


@pytest.mark.parametrize("text", [
    "It is done.", "Really?", "Go! ", "He said \"yes.\"", "他来了。", "真的吗？", "好！", "“走吧。”", "A list\n\n",
    "```py\nx = 1\n```\nThat is all.", "**Bold end.**", "(An aside.)",
])  # fmt: skip
def test_here_it_may_end(text: str):
    assert complete(text)


@pytest.mark.parametrize("text", [
    "", "It is", "pi is 3.", "see e.g.", "Dr.", "J.", "他来了，", "```py\nx = 1.\n\n", "a, b,", "word", "```\nDone.",
])  # fmt: skip
def test_here_it_may_not(text: str):
    assert not complete(text)


def first_alarm(tokens: list[int], ngram: int = 6, repeats: int = 4) -> int | None:
    guard = LoopGuard(ngram, repeats)
    array = np.array(tokens, dtype=np.int32)
    return next((end for end in range(1, len(tokens) + 1) if guard.push(array, end)), None)


@given(st.integers(1, 15), st.integers(0, 20))
def test_a_cycle_is_found_once_it_stood_often_enough(period: int, lead: int):
    passage = -(-6 // period) * period
    tokens = [1000 + i for i in range(lead)] + [i % period for i in range(passage * 5)]
    assert first_alarm(tokens) == lead + passage * 4


def test_what_changes_is_no_loop():
    rng = np.random.default_rng(1)
    assert first_alarm(rng.integers(0, 50, 3000).tolist()) is None
    rows = [t for row in range(60) for t in (1, 2, 3, 4, 5, 6, 7, 1000 + row)]
    assert first_alarm(rows) is None
    assert first_alarm([1, 2, 3, 4, 5, 6, 7] * 3 + list(range(100, 130))) is None
