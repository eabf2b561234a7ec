"""An OpenAI-compatible server as an Engine: its streams become events, its refusals become errors.

It owns no checkpoint: templates, tokens, thinking and stops are the server's. A request is sent again only
while nothing has come back; a stream that is cut ends in `Failed`, never in silence.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from temper.engines.base import Capabilities, Engine, Health, Stats
from temper.engines.context import Context, no_endpoint
from temper.engines.openai import body as bodies
from temper.engines.openai.dialects import DIALECTS, Dialect, recognise
from temper.engines.openai.endpoint import Endpoint
from temper.engines.openai.reading import ChunkReader, EventLines, error_of
from temper.engines.openai.wire import Response, Wire, WireError, WireTimeout
from temper.errors import (
    DeadlineExceeded,
    Draining,
    EngineDied,
    EngineFailure,
    Invalid,
    NotFound,
    Rejected,
    TemperError,
    Unsupported,
)
from temper.profile import schema
from temper.types import Accepted, Done, Event, Failed, Message, Request

log = logging.getLogger(__name__)

BACKOFF_S = 0.05
"""Before the first repetition; each further one waits twice as long."""
MAX_ERROR_BYTES = 1 << 20


class OpenAIEngine(Engine):
    """A remote model behind OpenAI's API."""

    name = "openai"

    def __init__(
        self, config: schema.OpenAIEngine, context: Context | None = None, *, endpoint: Endpoint | None = None
    ) -> None:
        """`endpoint` wins over the one that `config` names among those of `context`.

        Raises:
            NotFound: no endpoint has the name.
        """
        self._config = config
        self._endpoint = endpoint or (context.endpoints if context else no_endpoint)(config.endpoint)
        self._wire: Wire | None = None
        self._dialect = DIALECTS["openai"] if config.dialect == "auto" else DIALECTS[config.dialect]
        self._capabilities = Capabilities(config.model or "")
        self._state: TemperError | None = Draining("the engine is not started", retry_after_s=1.0)
        self._broken: str | None = None
        self._open: set[asyncio.Task[Any]] = set()
        self._responses: set[Response] = set()
        self._num_running = self._num_waiting = 0
        self._totals = {"prompt": 0, "generation": 0, "cached": 0}
        self._watch: asyncio.Task[None] | None = None

    # -- life ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find out who is there and what it can do.

        Raises:
            EngineDied: nobody answers.
            Invalid: the server refuses us, or has no such model.
        """
        key = self._endpoint.api_key
        self._wire = Wire(
            self._endpoint.url,
            connect_timeout_s=self._config.connect_timeout_s,
            headers={"authorization": f"Bearer {key}"} if key else {},
        )
        try:
            status, listed = await self._get("/models")
        except WireError as error:
            raise EngineDied(str(error), hint=f"is a server running at {self._endpoint.url}?") from None
        if status in (401, 402, 403):
            raise error_of(listed, status)
        self._capabilities = self._learn(listed if status == 200 else {})
        self._state = self._broken = None
        if self._config.health_every_s is not None:
            self._watch = asyncio.create_task(self._look())

    async def stop(self, drain_s: float = 0.0) -> None:
        """Refuse from now on, wait for open streams, then cut those that are left."""
        self._state = Draining("the engine is stopping", retry_after_s=5.0)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        loop = asyncio.get_running_loop()
        end = loop.time() + drain_s
        while self._num_running and loop.time() < end:
            await asyncio.sleep(0.01)
        for response in list(self._responses):
            response.abort("the engine stopped before the answer was complete")
        end = loop.time() + 1.0
        while self._num_running and loop.time() < end:
            await asyncio.sleep(0.005)
        if self._wire is not None:
            self._wire.close()

    def health(self) -> Health:
        """As of the last look or request."""
        if self._state is not None:
            return Health(alive=False, ready=False, reason=str(self._state))
        return Health(alive=self._broken is None, ready=self._broken is None, reason=self._broken or "")

    def capabilities(self) -> Capabilities:
        """What the server says, and what its kind is known to offer."""
        return self._capabilities

    def stats(self) -> Stats:
        """Counts of our own requests; what else the server does is not known."""
        return Stats(
            num_running=self._num_running - self._num_waiting,
            num_waiting=self._num_waiting,
            prompt_tokens_total=self._totals["prompt"],
            generation_tokens_total=self._totals["generation"],
            prefix_queries_total=self._totals["prompt"],
            prefix_hits_total=self._totals["cached"],
            details={"endpoint": self._endpoint.url, "dialect": self._dialect.name},
        )

    def _learn(self, listed: Any) -> Capabilities:
        """Model, dialect and capabilities from the server's list of models (empty where it has none)."""
        entries = [entry for entry in (listed.get("data") or []) if isinstance(entry, Mapping)]
        wanted = self._config.model
        entry = next((entry for entry in entries if wanted in (None, entry.get("id"))), None)
        if entry is None and (wanted is None or entries):
            names = ", ".join(str(entry.get("id")) for entry in entries) or "none"
            raise NotFound(
                f"the server at {self._endpoint.url} does not list the model {wanted or 'to use'}; it has: {names}",
                param="model",
                hint="name one of them" if entries else "name the model: this server lists none",
            )
        entry = entry or {}
        if self._config.dialect == "auto":
            self._dialect = recognise(entry.get("owned_by"))
        return _capabilities(str(entry.get("id", wanted)), entry, self._dialect)

    async def _look(self) -> None:
        """Ask for the server's health every so often."""
        assert self._config.health_every_s is not None
        while True:
            await asyncio.sleep(self._config.health_every_s)
            try:
                status, _ = await self._get(self._dialect.health)
                self._broken = None if status == 200 else f"{self._dialect.health.lstrip('/')} answers {status}"
            except WireError as error:
                self._broken = str(error)

    # -- a request -------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        """Ask the server and translate its stream; see the seam for the order of events."""
        if self._state is not None:
            raise self._state
        bodies.check(request, self._capabilities, self._dialect)
        path = "/chat/completions" if request.messages is not None else "/completions"
        content = bodies.body(request, self._capabilities.model, self._dialect)
        loop = asyncio.get_running_loop()
        deadline = None if request.deadline_s is None else loop.time() + request.deadline_s
        self._num_running += 1
        response: Response | None = None
        try:
            response, failure = await self._first_byte(path, _json(content), deadline)
            if failure is not None:
                yield Accepted()
                yield Failed(failure)
                return
            assert response is not None
            self._responses.add(response)
            yield Accepted()
            reader = ChunkReader(request, self.name)
            try:
                async for event in self._events(response, reader):
                    yield event
            except TemperError as error:
                yield Failed(error)
            except WireError as error:
                yield Failed(self._broken_off(error))
        finally:
            self._num_running -= 1
            if response is not None:
                self._responses.discard(response)
                response.close()

    async def _events(self, response: Response, reader: ChunkReader) -> AsyncIterator[Event]:
        """The events of a stream, up to its `Done`.

        Raises:
            TemperError: the server says that it failed, or its stream ends in the middle.
            WireError: the connection broke.
        """
        lines = EventLines()
        async for data in response:
            for line in lines.feed(data):
                if line == b"[DONE]":
                    if not reader.is_complete:
                        raise EngineFailure("the server ended its stream before the answer was complete")
                    response.linger()
                    for event in reader.done():
                        self._count(event)
                        yield event
                    return
                for event in reader.read(line):
                    yield event
        if not reader.is_complete:
            raise EngineDied("the server's stream was cut before the answer was complete")
        for event in reader.done():
            self._count(event)
            yield event

    async def _first_byte(
        self, path: str, content: bytes, deadline: float | None
    ) -> tuple[Response | None, TemperError | None]:
        """Send until a stream begins: (the stream, None), or (None, why the taken request failed).

        Raises:
            Invalid, Rejected: the server refuses, or cannot be reached.
        """
        self._num_waiting += 1
        try:
            return await self._send(path, content, deadline), None
        except WireTimeout as error:
            return None, self._broken_off(error)
        except WireError as error:
            self._broken = str(error)
            if error.clean:
                raise Draining(str(error), retry_after_s=1.0) from None
            return None, EngineDied(str(error))
        except (Invalid, Rejected):
            raise
        except TemperError as error:
            return None, error
        finally:
            self._num_waiting -= 1

    async def _send(self, path: str, content: bytes, deadline: float | None) -> Response:
        """One POST, repeated while nothing comes back."""
        assert self._wire is not None
        for attempt in range(self._config.retries + 1):
            try:
                response = await self._wire.send(
                    "POST", path, content, silence_s=self._config.silence_s, deadline=deadline
                )
                break
            except WireError as error:
                if not error.clean or attempt == self._config.retries:
                    raise
                log.info("%s: %s; sending again", self._endpoint.url, error)
                await asyncio.sleep(BACKOFF_S * 2**attempt)
        self._broken = None
        if response.status == 200:
            return response
        async with response:
            raw = await response.read()
        raise error_of(_parsed(raw[:MAX_ERROR_BYTES]), response.status, _retry_after_s(response.headers))

    def _broken_off(self, error: WireError) -> TemperError:
        """What a failed connection means to the one who asked."""
        if isinstance(error, WireTimeout) and "deadline" in str(error):
            return DeadlineExceeded(str(error), param="deadline_s")
        if isinstance(error, WireTimeout):
            return EngineFailure(str(error))
        return EngineDied(str(error))

    def _count(self, event: Event) -> None:
        if isinstance(event, Done):
            self._totals["prompt"] += event.usage.prompt_tokens
            self._totals["generation"] += event.usage.completion_tokens
            self._totals["cached"] += event.usage.cached_tokens

    # -- what else is offered --------------------------------------------------------------------------

    async def tokenize(self, text: str | Sequence[Message], *, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text, or of a conversation where the server takes one.

        Raises:
            Unsupported: this kind of server cannot tell.
        """
        if self._dialect.tokenizer == "llama" and isinstance(text, str):
            asked: dict[str, Any] = {"content": text, "add_special": add_special_tokens}
        elif self._dialect.tokenizer == "vllm":
            what = {"prompt": text} if isinstance(text, str) else {"messages": bodies.messages(text)}
            asked = {"model": self._capabilities.model, "add_special_tokens": add_special_tokens, **what}
        else:
            raise Unsupported(f"{self._dialect.name} servers do not tokenize this", param="tokenize")
        return [int(number) for number in await self._post("//tokenize", asked, "tokens")]

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of ids.

        Raises:
            Unsupported: this kind of server cannot tell.
        """
        ids = list(token_ids)
        if self._dialect.tokenizer == "llama":
            return str(await self._post("//detokenize", {"tokens": ids}, "content"))
        if self._dialect.tokenizer == "vllm":
            asked = {"model": self._capabilities.model, "tokens": ids}
            return str(await self._post("//detokenize", asked, "prompt"))
        raise Unsupported(f"{self._dialect.name} servers do not detokenize", param="detokenize")

    async def count_tokens(self, request: Request) -> int:
        """Length of the prompt in tokens, as the server counts."""
        if request.prompt is not None and not isinstance(request.prompt, str):
            return len(request.prompt)
        return len(await self.tokenize(request.prompt if request.prompt is not None else request.messages or ()))

    async def _get(self, path: str) -> tuple[int, Any]:
        assert self._wire is not None
        async with await self._wire.send("GET", path, silence_s=self._config.connect_timeout_s) as response:
            return response.status, _parsed(await response.read())

    async def _post(self, path: str, asked: Any, field: str) -> Any:
        """One field of the answer to a POST."""
        assert self._wire is not None
        try:
            async with await self._wire.send("POST", path, _json(asked), silence_s=self._config.silence_s) as response:
                answer = _parsed(await response.read())
        except WireError as error:
            raise EngineDied(str(error)) from None
        if response.status != 200:
            raise error_of(answer, response.status)
        if not isinstance(answer, Mapping) or field not in answer:
            raise EngineFailure(f"the server's answer to {path.lstrip('/')} has no '{field}'")
        return answer[field]


def _capabilities(model: str, entry: Mapping[str, Any], dialect: Dialect) -> Capabilities:
    """What the server told of itself, else what its dialect is known to offer."""
    told = entry.get("capabilities")
    if dialect.name == "temper" and isinstance(told, Mapping):
        names = {item.name for item in fields(Capabilities)}
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in told.items() if name in names
        }
        # Over HTTP there are no scores of a whole vocabulary and no vectors through this class.
        return replace(Capabilities(model), **known | {"model": model, "score": False, "embed": False})
    length = entry.get("max_model_len") or (entry.get("meta") or {}).get("n_ctx_train")
    return Capabilities(
        model=model,
        context_length=int(length) if length else None,
        logprobs=dialect.max_logprobs > 0,
        max_logprobs=dialect.max_logprobs,
        echo=dialect.echo,
        tools=dialect.tools,
        grammar=dialect.grammar,
        max_n=dialect.max_n,
        seed=dialect.seed,
        thinking="thinking" in dialect.fields,
        tokenize=dialect.tokenizer is not None,
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _parsed(raw: bytes) -> Any:
    """JSON, or the raw text as a message where a proxy answered with a page of its own."""
    try:
        return json.loads(raw)
    except ValueError:
        return {"message": raw[:500].decode(errors="replace")}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None
