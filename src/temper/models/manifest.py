"""Where a checkpoint came from and what it is made of, with a hash that stands for its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from temper.errors import MalformedFile

STEPS_NAME: Final = "temper-steps.json"
"""Beside the weights of a refined checkpoint: what was done to it. No part of what its hash stands for."""
MAX_STEPS_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file that the checkpoint is made of."""

    name: str
    """Its name in the folder; `model.gguf` for a single GGUF file, whatever it is called here."""
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that `temper refine` did to a checkpoint."""

    recipe: str
    """Its verb: `quantize`, `lora`, `distill`, …"""
    settings: Mapping[str, Any]
    """Every setting, defaults filled in, seeds among them."""
    parent: str
    """Hash of the checkpoint that it began with."""
    parent_source: str
    """As the user named that."""
    data_sha256: str | None = None
    """Of the data it learned or was calibrated on."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """What was measured of the result, with how."""
    made_at: str = ""
    """UTC, ISO 8601."""
    version: str = ""
    """Of Temper."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The identity card of a checkpoint."""

    source: str
    """As the user named it."""
    revision: str
    """Hash or commit that pinned what was fetched; empty for files that the user keeps."""
    architecture: str
    formats: Mapping[str, int]
    """How many tensors are stored in each format."""
    files: tuple[ManifestFile, ...]
    steps: tuple[Step, ...] = ()
    """What was done to the weights since they were fetched, oldest first."""

    def hash(self) -> str:
        """SHA-256 over the content: equal for equal files, wherever they lie and however they were named."""
        content = {
            "architecture": self.architecture,
            "files": sorted((file.name, file.sha256) for file in self.files),
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """The whole card as one JSON document."""
        return json.dumps({"schema": "temper.manifest/1", **asdict(self)}, indent=2)


def write_steps(folder: Path, steps: Sequence[Step]) -> None:
    """Put the steps beside the weights, whole or not at all."""
    part = folder / f".{STEPS_NAME}.part"
    part.write_text(json.dumps({"schema": "temper.steps/1", "steps": [asdict(step) for step in steps]}, indent=2))
    part.replace(folder / STEPS_NAME)


def read_steps(folder: Path) -> tuple[Step, ...]:
    """The steps of a refined checkpoint, oldest first; none for any other.

    Raises:
        MalformedFile: the file is not what `write_steps` writes.
    """
    path = folder / STEPS_NAME
    if not path.is_file():
        return ()
    try:
        if path.stat().st_size > MAX_STEPS_BYTES:
            raise ValueError(f"longer than {MAX_STEPS_BYTES} bytes")
        found = json.loads(path.read_bytes())
        return tuple(Step(**step) for step in found["steps"])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise MalformedFile(
            f"{STEPS_NAME} must list what was done to the checkpoint: {str(error)[:100]}",
            hint="remove the file if its history does not matter",
        ) from error


def hash_files(paths: Sequence[tuple[str, Path]], cache_dir: Path) -> tuple[ManifestFile, ...]:
    """Size and SHA-256 of files, each given with its name in the manifest.

    Hashes are kept under `cache_dir` and used again while size and time of change stay the same.
    """
    return tuple(_hash_file(name, path, cache_dir) for name, path in paths)


def _hash_file(name: str, path: Path, cache_dir: Path) -> ManifestFile:
    stat = path.stat()
    note = cache_dir / "hashes" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    try:
        known = json.loads(note.read_text("utf-8"))
        if known["state"] == state:
            return ManifestFile(name, stat.st_size, str(known["sha256"]))
    except (OSError, ValueError, LookupError, TypeError):
        pass  # no note yet, or a broken one: hash the file
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note.parent.mkdir(parents=True, exist_ok=True)
    fresh = note.with_suffix(f".{stat.st_ino}.new")
    fresh.write_text(json.dumps({"state": state, "sha256": digest}), "utf-8")
    fresh.replace(note)
    return ManifestFile(name, stat.st_size, digest)
