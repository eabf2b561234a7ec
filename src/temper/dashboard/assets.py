"""The static files of the pages, read from the package once and served from memory.

The set of names is fixed when the router is made, so no path that a browser sends ever reaches the disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""Endings that are served. Anything else in the folder (notes, readmes) stays there."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, ready to send."""

    body: bytes
    media_type: str
    etag: str
    """Quoted, from the content: a new release is seen at the next visit, an old one costs a 304."""


def load_assets() -> Mapping[str, Asset]:
    """Every served file by its path below `static/`, with forward slashes."""
    return dict(_walk(resources.files("temper.dashboard") / "static", ""))


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Asset]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
            continue
        media_type = MEDIA_TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is not None:
            body = entry.read_bytes()
            yield prefix + entry.name, Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:16]}"')
