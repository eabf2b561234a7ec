"""Data files for training: what is held out, dropped, cut or refused, and what is no data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from temper.errors import TemperError
from temper.models.checkpoint import open_checkpoint
from temper.refine.train.examples import Renderer
from temper.refine.train.records import read_examples, share_that_thinks
from tests.tiny_models import write_tiny_folder


@pytest.fixture(scope="module")
def renderer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return Renderer(open_checkpoint(str(write_tiny_folder(folder)), folder))


def turns(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def read(renderer, *files: Path, held_out: tuple[Path, ...] = (), **settings: Any):
    given = {"held_out_share": 0.0, "longest": 64, "too_long": "drop", **settings}
    return read_examples(files, held_out, renderer, tell=lambda *told: None, **given)


def write(path: Path, *records: Any) -> Path:
    path.write_text("\n".join(record if isinstance(record, str) else json.dumps(record) for record in records))
    return path


def test_answers_that_think_are_noticed(tmp_path: Path):
    plain = write(tmp_path / "plain.jsonl", turns("a <think>?", "no </think>"), {"text": "<think>\nno"})
    thinking = write(tmp_path / "thinking.jsonl", turns("a", "b"), turns("c", "<think>\nso\n</think>\n\nd"))
    assert share_that_thinks([plain]) == 0
    assert share_that_thinks([plain, thinking]) == pytest.approx(1 / 3)


def test_a_share_is_held_out_by_content(tmp_path: Path, renderer):
    records = [turns(f"the {number}", str(number)) for number in range(200)]
    first = read(renderer, write(tmp_path / "a.jsonl", *records), held_out_share=0.2)
    assert 20 < len(first.held_out) < 60
    assert len(first.train) + len(first.held_out) == 200
    second = read(renderer, write(tmp_path / "b.jsonl", *reversed(records), turns("new", "one")), held_out_share=0.2)

    def texts(examples):
        return {tuple(example.token_ids.tolist()) for example in examples}

    assert texts(first.held_out) <= texts(second.held_out)
    assert texts(first.train) <= texts(second.train)
    assert first.sha256 != second.sha256


def test_long_examples_are_dropped_cut_or_refused(tmp_path: Path, renderer):
    path = write(tmp_path / "a.jsonl", turns("a", "b"), turns("a", "b" * 100), turns("a" * 100, "b"))
    assert (len(read(renderer, path).train), read(renderer, path).num_dropped) == (1, 2)
    cut = read(renderer, path, too_long="cut")
    assert (len(cut.train), cut.num_cut, cut.num_dropped) == (2, 1, 1)
    assert [len(example) for example in cut.train][1] == 64
    with pytest.raises(TemperError, match=r"a.jsonl:2: an example has 64 tokens at most \(batch.context_length\)"):
        read(renderer, path, too_long="refuse")


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("hello", "a.jsonl:2: a line must be JSON"),
    "an array": ("[1, 2]", "a.jsonl:2: a record is a JSON object"),
    "cut short": ('{"messages": [', "a.jsonl:2: a line must be JSON"),
    "no shape": ({"question": "a"}, "one of the known shapes, but its fields are: question"),
    "no turns": ({"messages": []}, "is empty"),
    "turns that are text": ({"messages": "hello"}, "'messages' is a list, but is text"),
    "a turn that is text": ({"messages": ["hello"]}, r"messages\[0\] is an object"),
    "an unknown role": ({"messages": [{"role": "robot", "content": "a"}]}, "but is 'robot'"),
    "no content": ({"messages": [{"role": "user"}]}, "needs 'content'"),
    "content that is none": ({"messages": [{"role": "user", "content": None}]}, "is text, but is null"),
    "nobody answers": ({"messages": [{"role": "user", "content": "a"}]}, "a.jsonl:2: .* assistant's turn"),
    "two answers": ({"messages": [{"role": "assistant", "content": "a"}] * 2}, "two assistant messages follow"),
    "an empty text": ({"text": ""}, "holds text, but is empty"),
    "a lone surrogate": ('{"text": "\\ud800"}', "Unicode text"),
    "no completion": ({"prompt": "a"}, "needs 'completion'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_named_by_file_and_line(tmp_path: Path, renderer, name):
    record, said = BAD[name]
    with pytest.raises(TemperError, match=said):
        read(renderer, write(tmp_path / "a.jsonl", turns("a", "b"), record))


def test_bad_files(tmp_path: Path, renderer):
    good = write(tmp_path / "good.jsonl", turns("a", "b"))
    with pytest.raises(TemperError, match="there is no data file"):
        read(renderer, tmp_path / "none.jsonl")
    with pytest.raises(TemperError, match=r"ends in '.gz'"):
        read(renderer, write(tmp_path / "a.gz", "x"))
    with pytest.raises(TemperError, match=r"must be an example to learn from, but empty\.jsonl leaves none"):
        read(renderer, write(tmp_path / "empty.jsonl"))
    with pytest.raises(TemperError, match="leaves none: 1 are longer than 64 tokens"):
        read(renderer, write(tmp_path / "long.jsonl", turns("a", "b" * 100)))
    with pytest.raises(TemperError, match="must be a held-out example"):
        read(renderer, good, held_out=(write(tmp_path / "long.jsonl", turns("a", "b" * 100)),))
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "\xe9"}')
    with pytest.raises(TemperError, match="must be UTF-8"):
        read(renderer, tmp_path / "latin.jsonl")
