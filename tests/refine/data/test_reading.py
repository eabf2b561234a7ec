"""Files of every kind, whole and broken: what can be read is read, what cannot is named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.errors import Invalid, NotFound
from temper.refine.data.reading import SUFFIXES, read, records
from temper.refine.data.record import Record, Turn
from temper.refine.data.writing import write_parquet

RECORDS = [
    Record((Turn("user", f"Question {i}"), Turn("assistant", f"Ånswer {i}")), "", str(i), {"n": i}) for i in range(5)
]


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*raw: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in raw)


def test_every_kind_of_file_gives_the_same_records(tmp_path: Path):
    rows = [record.to_json() for record in RECORDS]
    kinds = [
        write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + lines(*rows).replace("\n", "\r\n\n").encode()),
        write(tmp_path / "b.json", json.dumps(rows, indent=1)),
        write(tmp_path / "c.json", json.dumps({"data": rows})),
    ]
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "d.parquet", iter(RECORDS))
    for path in [*kinds, tmp_path / "d.parquet"]:
        assert list(records(path)) == RECORDS, path.name
    assert list(records(tmp_path)) == RECORDS * 4


def test_an_array_is_read_in_pieces(tmp_path: Path):
    rows = [{"text": "x" * 700, "n": number} for number in range(300)]
    path = write(tmp_path / "a.json", json.dumps(rows))
    assert [record.metadata["n"] for record in records(path)] == list(range(300))


def test_a_text_file_is_one_record(tmp_path: Path):
    assert list(records(write(tmp_path / "a.txt", "One.\n\nTwo."))) == [Record(text="One.\n\nTwo.")]


def test_parquet_in_another_shape(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    rows = [{"instruction": "Add", "input": None, "output": "3"}, {"instruction": "Say", "input": "x", "output": "y"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [record.prompt for record in records(tmp_path / "a.parquet")] == ["Add", "Say\n\nx"]


BAD = {
    "missing.jsonl": (None, "there is no data file"),
    "a.csv": ("a,b", "a data file is one of .jsonl"),
    "empty.jsonl": ("", "holds one record or more, but"),
    "blank.jsonl": ("\n\n", "holds one record or more, but"),
    "notjson.jsonl": ('{"text": "x"}\n{"text": \n', "notjson.jsonl:2: a line must be JSON"),
    "array.jsonl": ("[1, 2\n", "a JSON array belongs into a .json file"),
    "latin1.jsonl": (b'{"text": "caf\xe9"}\n', "latin1.jsonl:1: a line must be UTF-8"),
    "deep.jsonl": ("[" * 100_000 + "\n", "must be JSON"),
    "number.jsonl": ("5\n", "number.jsonl:1: a record is a JSON object, but is a number"),
    "late.jsonl": ('{"text": "x"}\n' * 3 + '{"text": 5}\n', "late.jsonl:4: 'text' is text, but is a number"),
    "broken.json": ('[{"text": "x"}, {"text": ', "the array breaks off or is malformed at record 1"),
    "trailing.json": ('[{"text": "x"}] and more', "text after the array's end"),
    "garbage.json": ("hello", "garbage.json must be JSON"),
    "utf16.json": ('[{"text": "x"}]'.encode("utf-16"), "utf16.json must be UTF-8"),
    "row.json": ('[{"text": "x"}, {"question": "y"}]', "row.json[1]: a record has one of the known shapes"),
    "empty.json": ("[]", "holds one record or more, but"),
    "bad.txt": (b"\xff\xfe\x00", "bad.txt:1: text must be UTF-8"),
    "blank.txt": ("  ", "'text' holds text, but is empty"),
    "no.parquet": ("PAR1 this is none", "no.parquet must be Parquet"),
    "csvish.jsonl": ("instruction,output\n", "a line must be JSON"),
    "nan.jsonl": ('{"text": "x", "score": NaN}\n', "a line must be JSON: NaN is no number of JSON"),
    "infinite.json": ('[{"text": "x"}, {"text": "y", "n": -Infinity}]', "-Infinity is no number of JSON"),
    "huge_number.jsonl": ('{"text": ' + "9" * 5000 + "}\n", "huge_number.jsonl:1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_their_place(tmp_path: Path, name: str):
    content, said = BAD[name]
    path = tmp_path / name
    if content is not None:
        write(path, content)
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(Invalid) as refused:
        list(records(path))
    assert said in str(refused.value)


def test_a_line_without_end_is_refused_before_it_fills_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("temper.refine.data.reading.MAX_LINE_BYTES", 1000)
    path = write(tmp_path / "a.jsonl", '{"text": "' + "x" * 2000)
    with pytest.raises(Invalid, match="1000 bytes at most"):
        list(read(path))


def test_a_folder_without_data(tmp_path: Path):
    write(tmp_path / "x.jsonl.manifest.json", "{}")
    with pytest.raises(NotFound, match="holds no data file"):
        list(read(tmp_path))


def test_a_bad_line_does_not_end_the_reading_of_whoever_wants_to_go_on(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\nnot json\n{"text": "y"}\n')
    found = list(read(path))
    assert [isinstance(located.found, Invalid) for located in found] == [False, True, False]
    assert [located.where for located in found] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3"]


@given(
    st.binary(max_size=200) | st.text(alphabet='[]{}",:\\ntext01 ', max_size=80).map(str.encode),
    st.sampled_from(SUFFIXES),
)
def test_any_bytes_are_read_or_refused(tmp_path_factory, content: bytes, suffix: str):
    path = write(tmp_path_factory.getbasetemp() / f"any{suffix}", content)
    try:
        for located in read(path):
            if isinstance(located.found, Record):
                located.found.line()
            else:
                assert str(located.error).startswith(path.name)
    except Invalid as error:
        assert str(error)
