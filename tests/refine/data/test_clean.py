"""Cleaning: each test drops what it should with its reason, and a kill changes nothing."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from temper.errors import Invalid, MissingExtra
from temper.models.checkpoint import open_checkpoint
from temper.refine.data.clean import CleanRecipe, Target, clean
from temper.refine.data.generate import GenerateRecipe, generate
from temper.refine.data.reading import records
from temper.refine.data.record import Record, Turn
from tests.tiny_models import write_tiny_folder

pytest.importorskip("rensa")
pytest.importorskip("py3langid")
ENGLISH = (
    "the and on an in the he re a then and the other one went on to say that this is the way in which they are made"
)
GERMAN = "Die Kinder spielen im Garten und freuen sich, weil heute die Sonne scheint und morgen keine Schule ist."


def silent(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Target:
    folder = write_tiny_folder(tmp_path_factory.mktemp("model"))
    with open_checkpoint(str(folder), folder) as checkpoint:
        return Target("tiny", checkpoint.tokenizer, checkpoint.template)


def long(number: int, words: int = 120) -> str:
    rng = random.Random(number)
    return " ".join(rng.choice(ENGLISH.split()) for _ in range(words))


def asked(text: str, **metadata: object) -> Record:
    return Record((Turn("user", text), Turn("assistant", "Yes, of course.")), "", None, metadata)


def save(path: Path, rows: list[Record], extra: str = "") -> Path:
    path.write_text("".join(record.line().decode() for record in rows) + extra)
    return path


def cleaned(tmp_path: Path, rows: list[Record], target: Target, extra: str = "", **settings):
    recipe = CleanRecipe(**{"min_tokens": 50, "max_tokens": 2000, **settings})
    manifest = clean(save(tmp_path / "in.jsonl", rows, extra), tmp_path / "out.jsonl", recipe, target, silent)
    return manifest["report"], list(records(tmp_path / "out.jsonl"))


def test_each_reason(tmp_path: Path, target: Target):
    rows = [
        asked(long(1)),
        asked(long(2)),
        asked(long(1), id="again"),
        asked(long(2) + " more"),
        asked("too short"),
        asked(long(3, 2000)),
        asked((GERMAN + " ") * 3),
        asked(long(4) + " jane@example.com"),
    ]
    report, found = cleaned(tmp_path, rows, target, "not json\n", languages=("en",), drop_malformed=True, pii="drop")
    assert {reason: entry["count"] for reason, entry in report["dropped"].items()} == {
        "exact duplicate": 1, "near-duplicate": 1, "too short": 1, "too long": 1, "another language": 1,
        "personal data": 1, "malformed": 1,
    }  # fmt: skip
    assert [record.prompt for record in found] == [long(1), long(2)]
    assert (report["num_read"], report["num_kept"], report["num_dropped"]) == (9, 2, 7)
    assert report["kept_share"] == pytest.approx(2 / 9)
    assert report["dropped"]["too short"]["share"] == pytest.approx(1 / 9)
    example = report["dropped"]["near-duplicate"]["examples"][0]
    assert example["where"] == "in.jsonl:4"
    assert "like record 2 of the output" in example["detail"]
    assert report["dropped"]["malformed"]["examples"][0]["where"] == "in.jsonl:9"
    assert report["languages"]["de"] == 1
    assert found[0].metadata["num_tokens"] == target.num_tokens(found[0])
    assert sum(report["tokens"].values()) == 8


@pytest.mark.parametrize(("action", "text"), [("flag", "jane@example.com"), ("mask", "[EMAIL]")])
def test_personal_data_is_named(tmp_path: Path, target: Target, action: str, text: str):
    report, found = cleaned(tmp_path, [asked(f"{long(1)} jane@example.com")], target, pii=action)
    assert found[0].prompt.endswith(text)
    assert found[0].metadata["pii"] == {"email": 1}
    assert report["pii"] == {"email": 1}


def test_masked_records_that_become_equal_are_one(tmp_path: Path, target: Target):
    rows = [asked(f"{long(1)} {name}@example.com") for name in ("jane", "omar")]
    report, found = cleaned(tmp_path, rows, target, pii="mask", near=None)
    assert len(found) == 1
    assert report["dropped"]["exact duplicate"]["count"] == 1


def test_plain_text_is_measured_and_masked(tmp_path: Path, target: Target):
    _, found = cleaned(tmp_path, [Record(text=f"{long(1)} <|im_end|> jane@example.com")], target, pii="mask")
    assert found[0].text.endswith("[EMAIL]")
    assert found[0].metadata["num_tokens"] > len(target.tokenizer.encode("<|im_end|>"))


def test_unknown_languages_stay(tmp_path: Path, target: Target):
    _, found = cleaned(tmp_path, [asked("12 + 5 = 17\n" * 40)], target, languages=("en",), min_confidence=1.0)
    assert "language" not in found[0].metadata


def test_records_of_a_template_are_told_apart_by_every_digit(tmp_path: Path, target: Target):
    source = tmp_path / "made.jsonl"
    recipe = GenerateRecipe({"service": 1.0}, 150, (1,), seed=1)
    asyncio.run(generate(recipe, source, silent))
    settings = CleanRecipe(min_tokens=1, near=0.8, pii="off")
    manifest = clean(source, tmp_path / "out.jsonl", settings, target, silent)
    assert manifest["num_records"] == 150


def test_a_killed_run_goes_on_with_the_same_bytes(tmp_path: Path, target: Target, monkeypatch):
    rows = [asked(long(number % 30) + (" and" if number % 3 == 0 else "")) for number in range(90)]
    source = save(tmp_path / "in.jsonl", rows)
    recipe = CleanRecipe(min_tokens=50, pii="mask")
    clean(source, tmp_path / "whole.jsonl", recipe, target, silent)
    monkeypatch.setattr("temper.refine.data.writing.NOTE_INTERVAL_S", 0.0)

    class Killed(Exception):
        pass

    for kill_at in (7, 35, 36, 80):

        def tell(what: str, done: int, total: int, kill_at: int = kill_at) -> None:
            if done == kill_at:
                raise Killed

        with pytest.raises(Killed):
            clean(source, tmp_path / "broken.jsonl", recipe, target, tell)
    manifest = clean(source, tmp_path / "broken.jsonl", recipe, target, silent)
    assert (tmp_path / "broken.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    whole = json.loads((tmp_path / "whole.jsonl.manifest.json").read_text())
    assert manifest["report"] == whole["report"]
    assert whole["report"]["num_kept"] < 90


def test_what_the_template_refuses_goes_with_its_words(tmp_path: Path, target: Target):
    from temper.models.chat_template import ChatTemplate

    strict = Target("strict", target.tokenizer, ChatTemplate("{{ raise_exception('no tools here') }}", {}))
    with pytest.raises(Invalid, match="nothing is left") as refused:
        cleaned(tmp_path, [asked(long(1))], strict)
    assert "refused by the chat template" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min_tokens": 10, "max_tokens": 5}, "lengths go from min_tokens up to max_tokens"),
        ({"min_tokens": -1}, "lengths go from"),
        ({"pii": "hide"}, "pii is one of flag, mask, drop, off"),
        ({"min_confidence": 2}, "a confidence lies between 0 and 1"),
        ({"languages": ("english",)}, "a language is an ISO 639-1 code"),
        ({"near": 0.2}, "the threshold is 0.2"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, target: Target, settings, said):
    with pytest.raises(Invalid, match=said):
        cleaned(tmp_path, [asked(long(1))], target, **settings)


def test_bad_input_stops_it_with_its_place(tmp_path: Path, target: Target):
    with pytest.raises(Invalid, match=r"in\.jsonl:2: a line must be JSON"):
        cleaned(tmp_path, [asked(long(1))], target, "not json\n")
    with pytest.raises(Invalid, match="one record or more"):
        cleaned(tmp_path, [], target)
    lying = [asked(long(1), template="words.boxes", operands={}), asked(long(2))]
    with pytest.raises(Invalid, match=r"in\.jsonl:1: the operands of 'words\.boxes' must be"):
        cleaned(tmp_path, lying, target)
    assert cleaned(tmp_path, lying, target, drop_malformed=True)[0]["dropped"]["malformed"]["count"] == 1


@pytest.mark.parametrize("package", ["rensa", "py3langid.langid"])
def test_a_missing_package_is_named(tmp_path: Path, target: Target, monkeypatch, package: str):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install 'temper-llm\[data\]'"):
        cleaned(tmp_path, [asked(long(1))], target)
