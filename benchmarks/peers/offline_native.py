"""Temper's engine in its own process: offline_native.py CHECKPOINT (see offline.py)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from offline import Generate, serve

from temper import api
from temper.asking import ask, collect


@contextmanager
def loaded() -> Iterator[Generate]:
    loop = asyncio.new_event_loop()
    profile = api.profile(sys.argv[1], in_process=True, **{"engine.kv.prefix_cache": False})
    engine = api.build(profile)
    loop.run_until_complete(engine.start())

    async def answers(prompts: list[list[int]], num_tokens: int) -> Sequence[int]:
        requests = [ask(ids, max_tokens=num_tokens, temperature=0.0, ignore_eos=True) for ids in prompts]
        found = await asyncio.gather(*(collect(engine.generate(request)) for request in requests))
        return [len(answer.samples[0].token_ids) for answer in found]

    try:
        yield lambda prompts, num_tokens: loop.run_until_complete(answers(prompts, num_tokens))
    finally:
        loop.run_until_complete(engine.stop())


if __name__ == "__main__":
    serve(loaded)
