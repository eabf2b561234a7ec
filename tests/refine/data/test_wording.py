"""Other words and slips: where they may happen, and where nothing may."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.errors import Invalid
from temper.measure.quality.generated import FORM
from temper.refine.data.wording import CHINESE, ENGLISH, numbers_of, read_table, synonyms, typos

TABLE = (*ENGLISH, *CHINESE)


def reworded(text: str, rate: float = 1.0, seed: int = 0, **more) -> str:
    return synonyms(text, random.Random(seed), rate, TABLE, **more)


def test_words_of_both_languages_are_swapped():
    assert reworded("A shop gets 5 boxes.") == "A store receives 5 boxes."
    assert reworded("Children play. Begin!") == "Kids play. Start!"
    assert reworded("他不会来。") == "他无法来。"
    assert reworded("可能下雨") in ("或许下雨", "也许下雨")
    assert reworded("a shopper") == "a shopper"


def test_words_inside_other_words_stay():
    assert reworded("不可能。会不会?可能性很大。") == "不可能。会不会?可能性很大。"


def test_a_rate_says_how_many():
    text = "The shop gets goods. " * 20
    changed = sum(a != b for a, b in zip(text.split(), reworded(text, 0.25).split(), strict=True))
    assert changed == 15
    assert reworded("A shop.", 0.01) == "A store."


@pytest.mark.parametrize(
    "closed", ["```\nshop(gets)\n```", "`shop`", "'the shop gets it'", '"shop"', FORM.strip(), "Answer with the shop."]
)
def test_what_is_closed_stays(closed: str):
    text = f"The shop: {closed} The shop."
    assert reworded(text) == f"The store: {closed} The store."
    assert closed in typos(text, random.Random(1), 1.0)
    assert reworded("the shop gets it", protected=("shop",)) == "the shop receives it"


def test_slips():
    rng = random.Random(3)
    slipped = {typos("several questions", rng, 0.5) for _ in range(60)}
    assert "several questions" not in slipped
    assert len(slipped) > 20
    assert typos("Omar has 1234 USD at X9", rng, 1.0) == "Omar has 1234 USD at X9"
    assert typos("我在家", rng, 1.0) == "我再家"


@given(st.text(max_size=200), st.integers(0, 999), st.floats(0.01, 1))
def test_any_text_keeps_its_numbers(text: str, seed: int, rate: float):
    assert numbers_of(reworded(text, rate, seed)) == numbers_of(text)
    assert numbers_of(typos(text, random.Random(seed), rate)) == numbers_of(text)


def test_the_table_is_sound():
    words = [word for row in TABLE for word in row]
    assert len(words) == len(set(words))
    assert all(len(row) >= 2 for row in TABLE)


def test_a_table_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.tsv"
    path.write_text("# mine\nwidget\tgadget\n不会/无法\n")
    table = read_table(path)
    assert synonyms("a Widget", random.Random(0), 1.0, table) == "a Gadget"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"alone\n", "two words or more"),
        (b"a\tb\nc\ta\n", "stands in one row, but 'a' in line 1"),
        (b"# nothing\n", "one row or more"),
        (b"\xff\xfe\n", "must be UTF-8"),
        (None, "there is no table"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, content: bytes | None, said: str):
    path = tmp_path / "mine.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Invalid, match=said):
        read_table(path)
