"""OpenVINO GenAI's continuous batching in its own process: offline_openvino.py WEIGHTS.gguf STREAMS (see offline.py).

Its defaults, but for the streams that it may compute at once and a cache that holds them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import openvino
import openvino_genai as genai
from offline import Generate, serve


@contextmanager
def loaded() -> Iterator[Generate]:
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 2  # GiB
    scheduler.max_num_seqs = int(sys.argv[2])
    scheduler.enable_prefix_caching = False
    pipeline = genai.ContinuousBatchingPipeline(sys.argv[1], scheduler, "CPU", {})

    def generate(prompts: list[list[int]], num_tokens: int) -> Sequence[int]:
        config = genai.GenerationConfig(max_new_tokens=num_tokens, ignore_eos=True, do_sample=False)
        inputs = [openvino.Tensor(np.array([ids], np.int64)) for ids in prompts]
        found = pipeline.generate(inputs, [config] * len(inputs))
        return [len(one.m_generation_ids[0]) for one in found]

    yield generate


if __name__ == "__main__":
    serve(loaded)
