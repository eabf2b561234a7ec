"""An engine that is watched: what becomes of each of its requests goes into the journal.

Nothing is changed but `made_by.version`. Where a request is going is written down before it goes there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from temper.asking import Answer, Reading
from temper.engines.base import Capabilities, Engine, Health, Scores, Stats
from temper.engines.tracing import EngineTrace
from temper.errors import Invalid, Rejected, TemperError
from temper.fleet.journal import Drawn, Journal, Outcome, Outcomes
from temper.profile.schema import Profile
from temper.types import Delta, Done, Event, Failed, Message, Request, Started, ToolDelta

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

MOST_JUDGED = 4
"""Answers whose quality is being judged at once; more are not sampled."""

Draw = Callable[[Request], Drawn]
Quality = Callable[[Request, Answer], Awaitable[float]]
"""0 to 1 for an answer."""


class Observed(Engine):
    """See the module. `quality` judges the answers that `sampled` picks by the request alone."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        draw: Draw,
        *,
        quality: Quality | None = None,
        sampled: Callable[[Request], bool] = lambda request: False,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._draw = draw
        self._quality = quality
        self._sampled = sampled
        self._judging: set[asyncio.Task[None]] = set()

    @property
    def name(self) -> str:  # type: ignore[override]
        """The engine's."""
        return self._engine.name

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """The engine's events."""
        drawn = self._draw(request)
        number = await self._journal.dispatched(drawn)
        wants = self._quality is not None and len(self._judging) < MOST_JUDGED and self._sampled(request)
        reading = Reading() if wants else None
        began = time.perf_counter()
        outcome: Outcome = "left"
        ttft_ms = e2e_ms = prompt_tokens = output_tokens = None
        try:
            async with aclosing(cast(AsyncGenerator[Event, None], self._engine.generate(request))) as stream:
                async for event in stream:
                    kind = type(event)
                    if ttft_ms is None and (kind is ToolDelta or (kind is Delta and event.channel != "prompt")):  # type: ignore[union-attr]
                        ttft_ms = 1000 * (time.perf_counter() - began)
                    elif isinstance(event, Started):
                        prompt_tokens = event.prompt_tokens
                    elif isinstance(event, Done):
                        outcome, e2e_ms = "ok", 1000 * (time.perf_counter() - began)
                        output_tokens = event.usage.completion_tokens
                        event = replace(event, made_by=replace(event.made_by, version=drawn.version))
                    elif isinstance(event, Failed):
                        outcome = "invalid" if isinstance(event.error, Invalid) else "failed"
                    if reading is not None and kind is not Failed:
                        reading.take(event)
                    yield event
            if outcome == "left":
                outcome = "failed"  # a stream that just ends is broken
        except Invalid:
            outcome = "invalid"
            raise
        except Rejected:
            outcome = "refused"
            raise
        except Exception:
            outcome = "failed"
            raise
        finally:
            how = Outcomes(outcome, ttft_ms, e2e_ms, prompt_tokens, output_tokens)
            if reading is not None and outcome == "ok":
                self._judge(number, how, request, reading.answer())
            else:
                self._journal.ended(number, how)

    def _judge(self, number: int, how: Outcomes, request: Request, answer: Answer) -> None:
        async def judge() -> None:
            assert self._quality is not None
            quality = None
            try:
                quality = await self._quality(request, answer)
            except TemperError as error:
                log.debug("the quality of %s was not judged: %s", request.id, error)
            finally:
                self._journal.ended(number, replace(how, quality=quality))

        task = asyncio.create_task(judge())
        self._judging.add(task)
        task.add_done_callback(self._judging.discard)

    # -- the rest of the seam is the engine's -------------------------------------------------------------

    async def start(self) -> None:
        """Start it."""
        await self._engine.start()

    async def stop(self, drain_s: float = 0.0) -> None:
        """Stop it; judgements under way are given up."""
        for task in list(self._judging):
            task.cancel()
        await asyncio.gather(*self._judging, return_exceptions=True)
        await self._engine.stop(drain_s)

    def health(self) -> Health:
        """The engine's."""
        return self._engine.health()

    def capabilities(self) -> Capabilities:
        """The engine's."""
        return self._engine.capabilities()

    def stats(self) -> Stats:
        """The engine's."""
        return self._engine.stats()

    async def tokenize(self, text: str | Sequence[Message], *, add_special_tokens: bool = True) -> list[int]:
        """As the engine does."""
        return await self._engine.tokenize(text, add_special_tokens=add_special_tokens)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """As the engine does."""
        return await self._engine.detokenize(token_ids)

    async def count_tokens(self, request: Request) -> int:
        """As the engine does."""
        return await self._engine.count_tokens(request)

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the engine does."""
        return await self._engine.embed(texts)

    async def score(self, tokens: Sequence[int], top_k: int | None = None) -> Scores:
        """As the engine does."""
        return await self._engine.score(tokens, top_k)

    async def load_adapter(self, name: str, source: str, *, replace: bool = False) -> None:
        """As the engine does."""
        await self._engine.load_adapter(name, source, replace=replace)

    async def unload_adapter(self, name: str, *, wait: bool = True) -> None:
        """As the engine does."""
        await self._engine.unload_adapter(name, wait=wait)

    async def start_trace(self) -> None:
        """As the engine does."""
        await self._engine.start_trace()

    async def stop_trace(self) -> EngineTrace:
        """As the engine does."""
        return await self._engine.stop_trace()

    async def apply(self, profile: Profile) -> bool:
        """As the engine does."""
        return await self._engine.apply(profile)
