"""One question to an engine, whole; a full queue is waited for, a few times and not for ever."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from temper.asking import Answer, ask, collect
from temper.engines.base import Engine
from temper.errors import Rejected

RETRIES: Final = 5
MAX_WAIT_S: Final = 60.0


async def answered(engine: Engine, text: str, *, id: str, **options: Any) -> Answer:
    """The answer to a user's message; `options` are those of `temper.asking.ask`.

    Raises:
        Rejected: it stayed too busy.
        TemperError: the engine refuses the request, or broke.
    """
    for attempt in range(RETRIES + 1):
        try:
            return await collect(engine.generate(ask([{"role": "user", "content": text}], id=id, **options)))
        except Rejected as error:
            if attempt == RETRIES:
                raise
            await asyncio.sleep(min(error.retry_after_s or 1.0, MAX_WAIT_S))
    raise AssertionError
