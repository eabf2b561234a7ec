"""The torch engine keeps the rules of the seam, over a tiny random model."""

from __future__ import annotations

from pathlib import Path

import pytest

from temper.engines.kinds import Context, build
from temper.profile.schema import BatchingConfig, KvConfig, Profile, TorchEngine
from tests.conformance.engine import EngineSuite
from tests.tiny_models import write_tiny_folder

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("transformers", reason="the extra 'torch' is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_folder(tmp_path_factory.mktemp("model") / "tiny", "qwen2", max_position_embeddings=8192)


class TestTorch(EngineSuite):
    @pytest.fixture
    async def engine(self, folder: Path, tmp_path: Path):
        section = TorchEngine(
            checkpoint=str(folder),
            kv=KvConfig(dtype="f32", budget_bytes=32 << 20),
            batching=BatchingConfig(max_sequences=16),
        )
        found = build(Profile(engine=section), context=Context(cache_dir=tmp_path, home=tmp_path))
        await found.start()
        yield found
        await found.stop()
