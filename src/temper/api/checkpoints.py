"""Models on disk: fetched, listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from temper.api.environment import Place, place
from temper.profile.schema import NativeEngine

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much is done, and how much there is in all (0 where unknown)."""

DEFAULT_MODEL = NativeEngine().checkpoint


@dataclass(frozen=True, slots=True)
class Fetched:
    """Where a model's files lie."""

    source: str
    path: Path
    revision: str
    """What pins the content: a hash or a commit; empty for files that the user keeps."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that can be named, and whether it is here."""

    name: str
    here: bool
    num_bytes: int
    licence: str
    about: str


def pull(source: str = DEFAULT_MODEL, progress: Progress | None = None, *, where: Place | None = None) -> Fetched:
    """Bring a model's files into the cache, or find that they are there.

    Raises:
        NotFound: `source` names nothing.
        FetchFailed: its home cannot be reached, or what came is not what was promised.
    """
    return fetch(source, where or place(), progress)


def fetch(source: str, where: Place, progress: Progress | None) -> Fetched:
    """`pull` for whoever has settled the place already."""
    from temper.models import sources

    found = sources.fetch(source, where.cache_dir, progress, where.hub_endpoint)
    return Fetched(found.source, found.path, found.revision)


def models(*, where: Place | None = None) -> list[KnownModel]:
    """The models of the catalogue, and those of the Hugging Face hub that are in the cache."""
    from temper.models.catalogue import CATALOGUE
    from temper.models.sources import is_fetched

    cache_dir = (where or place()).cache_dir
    known = [
        KnownModel(entry.name, is_fetched(entry.name, cache_dir), entry.num_bytes, entry.licence, entry.about)
        for entry in CATALOGUE.values()
    ]
    for folder in sorted((cache_dir / "hub").glob("models--*--*")):
        size = sum(file.stat().st_size for file in (folder / "blobs").glob("*") if file.is_file())
        name = "hf:" + folder.name.removeprefix("models--").replace("--", "/")
        known.append(KnownModel(name, True, size, "", "from the Hugging Face hub"))
    return known
