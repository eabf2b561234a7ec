"""Augmentation: every variant is still right, says where it came from, and stays with it in a split."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from temper.asking import Sample
from temper.errors import Invalid, QueueFull
from temper.measure.quality import equations
from temper.measure.quality.answers import final_text
from temper.measure.quality.check import Check
from temper.refine.data.augment import AugmentRecipe, augment
from temper.refine.data.generate import GenerateRecipe, generate
from temper.refine.data.leaks import keys_of
from temper.refine.data.paraphrase import changed_too_much
from temper.refine.data.questions import expected_of, retold
from temper.refine.data.reading import records
from temper.refine.data.record import Record, Turn
from temper.refine.data.split import SplitRecipe, check_leaks, split
from tests.measure.quality.answering import AnsweringEngine


def silent(what: str, done: int, total: int) -> None:
    pass


def made(source: Path, out: Path, tell=silent, **settings) -> dict:
    engine = settings.pop("engine", None)
    return asyncio.run(augment(source, out, AugmentRecipe(**settings), tell, engine=engine))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "in.jsonl"
    recipe = GenerateRecipe(
        {"words": 2.0, "words_zh": 1.0, "arithmetic": 1.0, "logic": 1.0, "service": 1.0}, 120, seed=4
    )
    asyncio.run(generate(recipe, out, silent))
    return out


def save(path: Path, found: list[Record]) -> Path:
    path.write_bytes(b"".join(record.line() for record in found))
    return path


def test_variants_are_right_and_name_their_origin(source: Path, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    manifest = made(source, out, operations=("synonyms", "typos", "numbers", "metrics"), copies=2, seed=1)
    before = {record.metadata["id"]: record for record in records(source)}
    check, kinds = Check(), dict.fromkeys(("synonyms", "typos", "numbers", "metrics"), 0)
    for record in records(out):
        expected = expected_of(record)
        assert check.right(expected, final_text(Sample(text=record.response)))
        assert equations.check(record.response.splitlines()).false == ()
        if "augmented" not in record.metadata:
            continue
        kind = record.metadata["augmented"]["by"]
        kinds[kind] += 1
        parent = before[record.metadata["id"].removesuffix(f"+{kind}")]
        assert record.prompt != parent.prompt
        if kind == "numbers":
            assert record.prompt.startswith(retold(record).text)
            assert keys_of(record).operands != keys_of(parent).operands
            words = [re.sub(r"\d+", "#", prompt) for prompt in (record.prompt, parent.prompt)]
            assert record.metadata["task"] == "arithmetic" or words[0] == words[1]
        else:
            assert (record.response, record.answer) == (parent.response, parent.answer)
            assert record.metadata["augmented"]["of"] == keys_of(parent).exact.hex()
            assert keys_of(record).operands == keys_of(parent).operands
    assert kinds == manifest["report"]["made"]
    assert min(kinds.values()) > 5
    assert re.search(r"\[words \d+, steps \d+, level \d\]", out.read_text())


def test_a_seed_decides_and_a_kill_changes_nothing(source: Path, tmp_path: Path, monkeypatch):
    whole, other, broken = (tmp_path / f"{name}.jsonl" for name in ("whole", "other", "broken"))
    made(source, whole, copies=2, seed=1)
    made(source, other, copies=2, seed=2)
    assert whole.read_bytes() != other.read_bytes()
    monkeypatch.setattr("temper.refine.data.writing.NOTE_INTERVAL_S", 0.0)

    class Killed(Exception):
        pass

    for kill_at in (11, 60):

        def tell(what: str, done: int, total: int, kill_at: int = kill_at) -> None:
            if done == kill_at:
                raise Killed

        with pytest.raises(Killed):
            made(source, broken, tell, copies=2, seed=1)
    made(source, broken, copies=2, seed=1)
    assert broken.read_bytes() == whole.read_bytes()


def test_variants_stay_with_their_origin_in_a_split(source: Path, tmp_path: Path):
    plain = [Record((Turn("user", f"Why does the shop {verb} early?"), Turn("assistant", "So."))) for verb in
             ("open", "close", "sell", "buy", "clean")]  # fmt: skip
    out = tmp_path / "out.jsonl"
    made(save(tmp_path / "plain.jsonl", plain), out, operations=("synonyms", "typos"), copies=2)
    assert len(list(records(out))) > 5
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    split(out, train, test, SplitRecipe(share=0.4, near=None), silent)
    roots = [{record.metadata.get("augmented", {}).get("of", keys_of(record).exact.hex()) for record in records(path)}
             for path in (train, test)]  # fmt: skip
    assert not roots[0] & roots[1]
    variant = next(record for record in records(out) if "augmented" in record.metadata)
    parent = next(record for record in plain if keys_of(record).exact.hex() == variant.metadata["augmented"]["of"])
    leaks = check_leaks(save(tmp_path / "a.jsonl", [variant]), save(tmp_path / "b.jsonl", [parent]), None, silent)
    assert leaks.document()["by_kind"] == {"wording": 1}
    with pytest.raises(Invalid, match=r"metadata\.augmented\.of is the key"):
        keys_of(variant.with_metadata(augmented={"of": 5}))


def test_what_cannot_vary_is_dropped_with_a_reason(tmp_path: Path):
    plain = save(tmp_path / "a.jsonl", [Record((Turn("user", "Hm?"), Turn("assistant", "So."))), Record(text="12 + 5")])
    report = made(plain, tmp_path / "out.jsonl", operations=("numbers", "synonyms"))["report"]
    assert {reason: found["count"] for reason, found in report["dropped"].items()} == {
        "numbers: no template to work the answer out again": 1, "synonyms: nothing in it may change": 1,
    }  # fmt: skip
    assert report["num_kept"] == 2
    with pytest.raises(Invalid, match="nothing is left"):
        made(plain, tmp_path / "none.jsonl", operations=("synonyms",), keep_original=False)


def test_a_record_that_lies_stops_it_with_its_place(tmp_path: Path):
    lying = [Record((Turn("user", "Hm?"), Turn("assistant", "So.")), "", "5", {"verifier": "guess"})]
    with pytest.raises(Invalid, match=r"a\.jsonl:1: metadata\.verifier\.kind is one of"):
        made(save(tmp_path / "a.jsonl", lying), tmp_path / "out.jsonl")


def test_paraphrases_are_kept_when_nothing_is_lost(source: Path, tmp_path: Path):
    calls = []

    def says(request):
        calls.append(request)
        if len(calls) == 3:
            return QueueFull("not now", retry_after_s=0.001)
        body = request.messages[0].content.partition("\n\n")[2]
        return {0: f"Tell me, please: {body}", 1: body, 2: re.sub(r"\d", "7", body) + " 7"}[len(calls) % 3]

    out = tmp_path / "out.jsonl"
    report = made(source, out, operations=("paraphrase",), engine=AnsweringEngine(says), seed=3)["report"]
    found = [record for record in records(out) if "augmented" in record.metadata]
    assert report["made"]["paraphrase"] == len(found) > 10
    for record in found:
        assert record.prompt.startswith("Tell me, please: ")
        assert record.metadata["augmented"]["by"] == "paraphrase"
        assert record.metadata["augmented"]["of"]
    assert any(record.prompt.endswith("Answer: <your answer>") for record in found)
    assert {"paraphrase: nothing was changed", "paraphrase: other numbers"} <= set(report["dropped"])
    assert all("Answer: <your answer>" not in call.messages[0].content for call in calls)


@pytest.mark.parametrize(
    ("body", "said", "reason"),
    [
        ("Has Ann 5 apples? Yes or no", "Does Ann own 5 apples? Yes or no", ""),
        ("Has Ann 5 apples?", "", "nothing was said"),
        ("Has Ann 5 apples?", "Has Ann five apples?", "other numbers"),
        ("Is Ann taller than Ben?", "Who of the two is taller, Ann or she?", "a choice is lost"),
        ("Run `f(x)` now", "Run the function now", "code is lost"),
        ("Where is the station?", "火车站在哪里?", "another language"),
        ("Where is the station?", "Where?", "much shorter or longer"),
    ],
)
def test_what_speaks_against_a_paraphrase(body: str, said: str, reason: str):
    assert changed_too_much(body, said, ("Ann", "Ben")) == reason


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"operations": ()}, "operations are of synonyms"),
        ({"operations": ("magic",)}, "but are magic"),
        ({"operations": ("paraphrase",)}, "a paraphrase needs a model"),
        ({"copies": 0}, "1 or more"),
        ({"rate": 0.0}, "a rate lies above 0"),
    ],
)
def test_settings_that_cannot_be(source: Path, tmp_path: Path, settings, said):
    with pytest.raises(Invalid, match=said):
        made(source, tmp_path / "out.jsonl", **settings)
