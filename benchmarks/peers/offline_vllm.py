"""vLLM in its own process: offline_vllm.py FOLDER STREAMS (see offline.py). bf16 where the CPU multiplies in it, else
float32, in which it would emulate bf16 anyway; its defaults otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from offline import Generate, serve
from vllm import LLM, SamplingParams


@contextmanager
def loaded() -> Iterator[Generate]:
    model = LLM(
        sys.argv[1],
        dtype="bfloat16" if "avx512_bf16" in Path("/proc/cpuinfo").read_text() else "float32",
        max_model_len=1024,
        max_num_seqs=int(sys.argv[2]),
        enable_prefix_caching=False,
        kv_cache_memory_bytes=2 << 30,
        gpu_memory_utilization=0.4,
    )

    def generate(prompts: list[list[int]], num_tokens: int) -> Sequence[int]:
        wanted = SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True, detokenize=False)
        found = model.generate([{"prompt_token_ids": ids} for ids in prompts], wanted, use_tqdm=False)
        return [len(one.outputs[0].token_ids) for one in found]

    yield generate


if __name__ == "__main__":
    serve(loaded)
