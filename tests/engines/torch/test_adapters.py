"""Adapters beside a transformers model give the log-probabilities of the model with the adapter merged."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from temper.engines.base import Engine
from temper.errors import Invalid, Unsupported
from temper.profile.schema import TorchCompute
from temper.types import Delta, Limits, Request
from tests.engines.torch.test_load import IDS, engine
from tests.tiny_models import write_tiny_adapter, write_tiny_folder, write_tiny_gguf

torch = pytest.importorskip("torch", reason="the extra 'torch' is not installed")
transformers = pytest.importorskip("transformers", reason="the extra 'torch' is not installed")

from tests.models.test_adapter import ALL, _merge  # noqa: E402


async def prompt_logprobs(made: Engine, adapter: str | None) -> list[float]:
    request = Request("r", prompt=tuple(IDS), limits=Limits(max_tokens=0), echo=True, logprobs=0, adapter=adapter)
    events = [event async for event in made.generate(request)]
    entries = [entry for e in events if isinstance(e, Delta) and e.logprobs for entry in e.logprobs]
    return [entry.logprob for entry in entries[1:] if entry.logprob is not None]


def expected(base: Path, adapter: Path | None) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    if adapter is not None:
        _merge(torch, model, adapter)
    with torch.inference_mode():
        logits = torch.log_softmax(model(torch.tensor([IDS])).logits[0], -1)
    return logits[torch.arange(len(IDS) - 1), torch.tensor(IDS[1:])].numpy()


@pytest.mark.parametrize(("architecture", "container"), [("llama", "gguf"), ("qwen2", "folder")])
async def test_rows_have_their_own_adapters(tmp_path: Path, architecture: str, container: str):
    base = write_tiny_folder(tmp_path / "base", architecture)
    source = base if container == "folder" else write_tiny_gguf(tmp_path / "m.gguf", architecture)
    folders = {name: write_tiny_adapter(tmp_path / name, architecture, seed=i, targets=ALL)
               for i, name in enumerate(("one", "two"))}  # fmt: skip
    made = engine(source, tmp_path, adapters={name: str(folder) for name, folder in folders.items()})
    await made.start()
    try:
        names = ["one", None, "two", "one"]
        found = await asyncio.gather(*(prompt_logprobs(made, name) for name in names))
        for name, logprobs in zip(names, found, strict=True):
            np.testing.assert_allclose(logprobs, expected(base, folders.get(name or "")), atol=5e-4)
        await made.unload_adapter("one")
        await made.load_adapter("one", str(folders["two"]))
        alone = await prompt_logprobs(made, "one")
        np.testing.assert_allclose(alone, found[2], rtol=1e-5)  # BLAS sums one row in another order than four
        assert np.abs(np.subtract(alone, found[0])).max() > 1e-3
        with pytest.raises(Invalid):
            await prompt_logprobs(made, "three")
    finally:
        await made.stop()


async def test_a_compiled_model_takes_none(tmp_path: Path):
    base = write_tiny_folder(tmp_path / "base")
    made = engine(base, tmp_path, compute=TorchCompute(compile=True))
    await made.start()
    try:
        with pytest.raises(Unsupported, match="adapters"):
            await made.load_adapter("one", str(write_tiny_adapter(tmp_path / "one")))
    finally:
        await made.stop()
