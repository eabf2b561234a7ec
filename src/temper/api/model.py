"""An engine at work, for plain synchronous code and for coroutines alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from temper.asking import Answer, Prompt, Reading, ask
from temper.errors import EngineFailure, Invalid
from temper.profile.schema import Profile
from temper.types import Delta, Event, Message, Request

if TYPE_CHECKING:
    from temper.engines.base import Capabilities, Engine, Scores, Stats

T = TypeVar("T")


class Model:
    """An engine at work, for plain synchronous code and for coroutines alike.

    The engine lives on an event loop in a thread of its own; calls may come from any thread. Close it, or
    use it as a context manager: that frees the weights and ends the thread.
    """

    def __init__(self, profile: Profile, engine: Engine) -> None:
        self.profile = profile
        self._engine = engine
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="temper-model", daemon=True)
        self._thread.start()
        self._closed = False
        try:
            self._run(engine.start())
        except BaseException:
            self._end_loop()
            raise

    @overload
    def generate(self, prompts: str | Sequence[Mapping[str, Any] | Message], **options: Any) -> Answer: ...
    @overload
    def generate(self, prompts: Sequence[Prompt], **options: Any) -> list[Answer]: ...
    def generate(self, prompts: Any, **options: Any) -> Answer | list[Answer]:
        """Answer one prompt, or many at once in one batch.

        Text is continued as it stands; a list of messages is answered under the chat template. `options`
        are those of the HTTP API: `max_tokens`, `temperature`, `top_p`, `seed`, `stop`, `n`, … (`asking.OPTIONS`).

        Raises:
            Invalid, Rejected, EngineFailure: what the engine says of the first request that fails.
        """
        if _is_one(prompts):
            return self._run(self._answer(ask(prompts, **options)))
        requests = [ask(prompt, **options) for prompt in prompts]
        return self._run(self._answer_all(requests))

    def chat(self, messages: str | Sequence[Mapping[str, Any] | Message], **options: Any) -> Answer:
        """Answer a conversation, or one question given as text, under the checkpoint's chat template."""
        return self._run(self._answer(ask(conversation(messages), **options)))

    def stream(self, prompt: Prompt, **options: Any) -> Iterator[Delta]:
        """The pieces of an answer as they come: `for piece in model.stream(…): print(piece.text, end="")`.

        Leaving the loop early cancels the work.
        """
        for event in self.events(ask(prompt, **options)):
            if isinstance(event, Delta):
                yield event

    def events(self, request: Request) -> Iterator[Event]:
        """Every event of a request. A `Failed` is raised as the error it holds."""
        stream = _Stream(self._engine.generate(request))
        reading = Reading()
        try:
            while reading.done is None:
                event = self._run(stream.next())
                reading.take(event)
                yield event
        finally:
            self._run(stream.close())

    async def agenerate(self, prompt: Prompt, **options: Any) -> Answer:
        """`generate` for coroutines, one prompt at a time; gather several to run them in one batch."""
        return await self._elsewhere(self._answer(ask(prompt, **options)))

    async def astream(self, prompt: Prompt, **options: Any) -> AsyncIterator[Delta]:
        """`stream` for coroutines."""
        stream = _Stream(self._engine.generate(ask(prompt, **options)))
        reading = Reading()
        try:
            while reading.done is None:
                event = await self._elsewhere(stream.next())
                reading.take(event)
                if isinstance(event, Delta):
                    yield event
        finally:
            await self._elsewhere(stream.close())

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
        return self._run(self._engine.tokenize(text, add_special_tokens=add_special_tokens))

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of token ids."""
        return self._run(self._engine.detokenize(token_ids))

    def score(self, tokens: Sequence[int], top_k: int | None = None) -> Scores:
        """Log-probabilities of given tokens; see `engines.base.Scores`."""
        return self._run(self._engine.score(tokens, top_k))

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        return self._engine.capabilities()

    @property
    def stats(self) -> Stats:
        """What it is doing now."""
        return self._engine.stats()

    def close(self) -> None:
        """Stop the engine and free everything it held. Closing twice does nothing."""
        if not self._closed:
            try:
                self._run(self._engine.stop())
            finally:
                self._end_loop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False

    async def _answer(self, request: Request) -> Answer:
        from temper.asking import collect

        return await collect(self._engine.generate(request))

    async def _answer_all(self, requests: Sequence[Request]) -> list[Answer]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._answer(request)) for request in requests]
        return [task.result() for task in tasks]

    def _run(self, work: Awaitable[T]) -> T:
        """Do `work` on the model's loop and wait for it; an interrupt here cancels it there."""
        if self._closed:
            if asyncio.iscoroutine(work):
                work.close()
            raise Invalid("a closed model answers nothing", hint="load it again")
        future = asyncio.run_coroutine_threadsafe(_as_coroutine(work), self._loop)
        try:
            return future.result()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    async def _elsewhere(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` on the model's loop while this loop goes on."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _end_loop(self) -> None:
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def conversation(messages: str | Sequence[Mapping[str, Any] | Message]) -> Sequence[Mapping[str, Any] | Message]:
    """A question given as text, as a conversation of one turn; a conversation as it is."""
    return [Message("user", messages)] if isinstance(messages, str) else messages


def _is_one(prompts: Any) -> bool:
    """Whether this is one prompt: a text, or a list of messages."""
    return isinstance(prompts, str) or (bool(prompts) and isinstance(prompts[0], Mapping | Message | int))


async def _as_coroutine(work: Awaitable[T]) -> T:
    return await work


class _Stream:
    """One request's events, taken one at a time by another thread.

    A take that was cancelled from there ends a moment later; the lock lets the close wait for it.
    """

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events
        self._lock = asyncio.Lock()

    async def next(self) -> Event:
        async with self._lock:
            event = await anext(self._events, None)
        if event is None:
            raise EngineFailure("an engine's stream must end with Done or Failed, but it just ended")
        return event

    async def close(self) -> None:
        close = getattr(self._events, "aclose", None)
        if close is not None:
            async with self._lock:
                await close()
