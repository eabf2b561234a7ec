"""Splits: no question on both sides, the share kept, and leaks that were asked for refused by name."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from temper.errors import Invalid
from temper.measure.quality.generators import tasks
from temper.refine.data.generate import GenerateRecipe, generate
from temper.refine.data.leaks import find_leaks, placed
from temper.refine.data.reading import records
from temper.refine.data.record import Record, Turn
from temper.refine.data.split import SplitRecipe, check_leaks, split

STORY = (
    "The keeper of the lighthouse climbs the stairs every evening, counts the ships that pass the island in the fog, "
    "and writes their names into a book that nobody has read since the harbour was closed in the year of the storm "
)


def silent(what: str, done: int, total: int) -> None:
    pass


def save(path: Path, found: list[Record]) -> Path:
    path.write_bytes(b"".join(record.line() for record in found))
    return path


def asked(text: str, **metadata: object) -> Record:
    return Record((Turn("user", text), Turn("assistant", "Yes.")), "", None, metadata)


@pytest.fixture(scope="module")
def sums(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sums") / "a.jsonl"
    recipe = GenerateRecipe({"arithmetic": 1.0, "words": 1.0, "logic": 1.0}, 500, seed=1)
    asyncio.run(generate(recipe, out, silent))
    return out


def test_nothing_is_lost_and_nothing_is_in_both(sums: Path, tmp_path: Path):
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    found = split(sums, train, test, SplitRecipe(share=0.2, seed=3), silent)
    both = [*records(train), *records(test)]
    assert sorted(record.line() for record in both) == sorted(record.line() for record in records(sums))
    assert 0.15 < found["report"]["test_share"] < 0.25
    assert found["test"]["num_records"] == found["report"]["num_test"] == len(list(records(test)))
    assert not check_leaks(train, test, 0.95, silent)
    again = (tmp_path / "train2.jsonl", tmp_path / "test2.jsonl")
    split(sums, *again, SplitRecipe(share=0.2, seed=3), silent)
    assert [path.read_bytes() for path in again] == [train.read_bytes(), test.read_bytes()]


def test_the_same_numbers_under_other_names_stay_together(sums: Path, tmp_path: Path):
    template = tasks.template("words.give_and_get")
    import random

    plain = template.question(random.Random(1))
    other = template.question(random.Random(1), {**plain.operands, "people": ["Mia", "Tom"], "thing": "books"})
    twins = [
        asked(question.text, template=question.template, operands=dict(question.operands))
        for question in (plain, other)
    ]
    assert twins[0].prompt != twins[1].prompt
    leaks = find_leaks(placed(twins[:1], "train"), placed(twins[1:], "test"))
    assert leaks.document()["by_kind"] == {"operands": 1}
    for seed in range(8):
        train, test = tmp_path / f"train{seed}.jsonl", tmp_path / f"test{seed}.jsonl"
        split(save(tmp_path / f"all{seed}.jsonl", [*twins, asked("One?"), asked("Two?")]), train, test,
              SplitRecipe(share=0.5, seed=seed), silent)  # fmt: skip
        sides = [{record.prompt for record in records(path)} for path in (train, test)]
        assert any({twin.prompt for twin in twins} <= side for side in sides)


def test_near_duplicates_stay_together(tmp_path: Path):
    pytest.importorskip("rensa")
    rows = []
    for number in range(30):
        tale = " ".join(f"{word}{number // 3}" for word in STORY.split())
        rows.append(asked(f"{tale} and then {('quietly', 'softly', 'slowly')[number % 3]}"))
    found = split(save(tmp_path / "a.jsonl", rows), tmp_path / "train.jsonl", tmp_path / "test.jsonl",
                  SplitRecipe(share=0.3, near=0.8), silent)  # fmt: skip
    assert found["report"]["num_groups"] == 10
    assert not check_leaks(tmp_path / "train.jsonl", tmp_path / "test.jsonl", 0.8, silent)


@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [("Is it late?", "is it  LATE?", "exact"), (STORY * 2 + "and sleeps", STORY * 2 + "and wakes", "near")],
)
def test_leaks_are_named(tmp_path: Path, train: str, test: str, kind: str):
    pytest.importorskip("rensa")
    paths = [save(tmp_path / f"{name}.jsonl", [asked("Something else entirely?" + name), asked(text)])
             for name, text in (("train", train), ("test", test))]  # fmt: skip
    found = check_leaks(*paths, 0.9, silent)
    (leak,) = found.shown
    assert (leak.kind, leak.train, leak.test) == (kind, "train.jsonl:2", "test.jsonl:2")
    with pytest.raises(Invalid, match=r"share 1 questions: train\.jsonl:2 and test\.jsonl:2"):
        found.refuse("they")


def test_sides_of_ones_own_are_refused_where_they_leak(tmp_path: Path):
    rows = [asked("One?", part="train"), asked("Two?", part="test"), asked("Three?", part="train")]
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    split(save(tmp_path / "a.jsonl", rows), train, test, SplitRecipe(sides="part", near=None), silent)
    assert [record.prompt for record in records(test)] == ["Two?"]
    leaking = save(tmp_path / "b.jsonl", [*rows, asked("two?", part="train")])
    with pytest.raises(Invalid, match=r"train2\.jsonl:3 and test2\.jsonl:1: the same question"):
        split(
            leaking, tmp_path / "train2.jsonl", tmp_path / "test2.jsonl", SplitRecipe(sides="part", near=None), silent
        )
    assert not (tmp_path / "train2.jsonl").exists()


def test_another_test_set_is_held_against_the_source(sums: Path, tmp_path: Path):
    exam = save(tmp_path / "exam.jsonl", [next(records(sums))])
    with pytest.raises(Invalid, match=r"'a\.jsonl' and 'exam\.jsonl' share 1 questions: a\.jsonl:1 and exam\.jsonl:1"):
        split(sums, tmp_path / "train.jsonl", tmp_path / "test.jsonl", SplitRecipe(), silent, against=[exam])


def test_a_field_keeps_records_together(sums: Path, tmp_path: Path):
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    split(sums, train, test, SplitRecipe(share=0.3, by="template"), silent)
    sides = [{record.metadata["template"] for record in records(path)} for path in (train, test)]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("rows", "recipe", "said"),
    [
        ([asked("One?")], {}, "all 1 belong together"),
        ([asked("One?"), asked("one?")], {"near": None}, "all 2 belong together"),
        ([asked("One?"), asked("Two?")], {"by": "topic", "near": None}, "this record has none"),
        ([asked("One?", part="dev")], {"sides": "part", "near": None}, "says 'train' or 'test', but is 'dev'"),
        ([asked("One?", part="test")], {"sides": "part", "near": None}, "nothing is left"),
        ([asked("x", template="words.boxes", operands={"boxes": 1})], {}, r"a\.jsonl:1: .*must be those that"),
    ],
)
def test_what_cannot_be_divided_is_refused(tmp_path: Path, rows, recipe, said):
    if recipe.get("near", 1) is not None:
        pytest.importorskip("rensa")
    with pytest.raises(Invalid, match=said):
        split(save(tmp_path / "a.jsonl", rows), tmp_path / "train.jsonl", tmp_path / "test.jsonl",
              SplitRecipe(**recipe), silent)  # fmt: skip


def test_neither_file_appears_when_one_cannot(tmp_path: Path):
    rows = [asked("One?", part="train"), asked("Two?", part="train")]
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    with pytest.raises(Invalid, match="nothing is left"):
        split(save(tmp_path / "a.jsonl", rows), train, test, SplitRecipe(sides="part", near=None), silent)
    assert not train.exists()
    rows.append(asked("Three?", part="test"))
    split(save(tmp_path / "a.jsonl", rows), train, test, SplitRecipe(sides="part", near=None), silent)
    assert train.exists()
    assert test.exists()


def test_recipes_that_cannot_be(tmp_path: Path):
    for bad in ({"share": 0}, {"share": 1.0}, {"by": "a", "sides": "b"}):
        with pytest.raises(Invalid):
            SplitRecipe(**bad)
    with pytest.raises(Invalid, match="two files"):
        split(tmp_path / "a.jsonl", tmp_path / "x.jsonl", tmp_path / "x.jsonl", SplitRecipe(), silent)


def test_a_bad_record_ends_it_with_its_place(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "x"}) + "\n" + json.dumps({"text": 5}) + "\n")
    with pytest.raises(Invalid, match=r"a\.jsonl:2: 'text' is text"):
        split(path, tmp_path / "train.jsonl", tmp_path / "test.jsonl", SplitRecipe(near=None), silent)
