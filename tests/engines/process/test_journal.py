"""What is kept of a server's output."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from temper.engines.process import journal
from temper.engines.process.journal import Journal


def test_lines_come_out_whole_whatever_pieces_they_came_in(tmp_path):
    kept = Journal(tmp_path / "a" / "x.log")
    assert kept.write(b"one\ntw") == ["one"]
    assert kept.last() == ["one", "tw"]
    assert kept.write(b"o\r\n\x1b[1mthree\x1b[0m\n") == ["two", "three"]
    kept.close()
    kept.write(b"four")
    assert kept.last(2) == ["three", "four"]
    assert (tmp_path / "a" / "x.log").read_bytes() == b"one\ntwo\r\n\x1b[1mthree\x1b[0m\nfour"


def test_files_turn_over(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "FILE_BYTES", 100)
    kept = Journal(tmp_path / "x.log")
    for index in range(30):
        kept.write(f"line {index:02}\n".encode())
    kept.close()
    assert (tmp_path / "x.log").stat().st_size <= 100
    assert (tmp_path / "x.old").stat().st_size <= 100
    assert "line 29" in (tmp_path / "x.log").read_text()


def test_old_files_go(tmp_path):
    for index in range(journal.KEPT_FILES + 10):
        kept = Journal(tmp_path / f"{index}.log")
        kept.write(b"x\n")
        kept.close()
    assert len(list(tmp_path.glob("*.log"))) == journal.KEPT_FILES


def test_a_folder_that_cannot_be_written_does_not_stop_the_server(tmp_path):
    (tmp_path / "file").write_text("")
    kept = Journal(tmp_path / "file" / "x.log")
    assert kept.write(b"still here\n") == ["still here"]


@pytest.mark.parametrize("size", [1 << 16])
@given(data=st.binary(max_size=3000))
def test_any_bytes_are_taken(tmp_path_factory, size, data):
    kept = Journal(tmp_path_factory.getbasetemp() / "any.log")
    kept.write(data)
    kept.write(b"\xff" * size)
    assert all(len(line) <= journal.LONGEST_LINE and (line.isprintable() or "\t" in line) for line in kept.last(500))
    kept.close()
