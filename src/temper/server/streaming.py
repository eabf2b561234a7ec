"""Answers as they come: server-sent events, written with as little work per token as we know how.

The status line waits for the first text, so that a request that fails before it gets a proper status.
A stream that breaks later ends with an error event and never with `[DONE]`. While nothing comes,
comments keep the connection alive.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from temper.errors import TemperError
from temper.server.answers import Head, made_fields, usage_fields
from temper.server.calls import Call, ClientLeft, while_connected
from temper.server.errors import envelope, error_response, internal_error
from temper.server.logprobs import LegacyLogprobs, chat_entries
from temper.types import Delta, Done, Event, Finished, Started, ToolDelta, Usage

log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

quote: Callable[[str], str] = json.encoder.encode_basestring_ascii
"""A JSON string; the C function that `json.dumps` ends up in."""


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


class Chunks(Protocol):
    """Turns the events of a call into bytes of a stream."""

    def feed(self, number: int, event: Event) -> str:
        """The chunks for an event of request `number`; empty where it says nothing to a client."""

    def end(self) -> str:
        """What follows the last event, before `[DONE]`."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What a client asked for beside the text."""

    usage: bool = False
    """A last chunk with the token counts."""
    start: bool = False
    """A first chunk with the size of the prompt."""
    token_ids: bool = False
    """The ids of the tokens in each chunk."""


class _Ending:
    """Usage and `made_by` of all requests of a call, for the last chunk."""

    def __init__(self, head: dict[str, Any], include_usage: bool) -> None:
        self._head = head
        self._include = include_usage
        self._done: list[Done] = []

    def take(self, event: Done) -> None:
        self._done.append(event)

    def text(self) -> str:
        if not self._include:
            return ""
        usages: list[Usage] = [event.usage for event in self._done]
        chunk = {**self._head, "choices": [], "usage": usage_fields(usages), "temper": made_fields(self._done)}
        return f"data: {_json(chunk)}\n\n"


def _start_chunk(fields: dict[str, Any], event: Started) -> str:
    started = {"prompt_tokens": event.prompt_tokens, "cached_tokens": event.cached_tokens}
    return f"data: {_json({**fields, 'choices': [], 'temper': {'started': started}})}\n\n"


class ChatChunks:
    """Chunks of a chat completion: the role first, then text by channel, then the reason of the end."""

    def __init__(self, head: Head, extras: Extras) -> None:
        fields = head.fields("chat.completion.chunk")
        self._start = f'data: {_json(fields)[:-1]},"choices":[{{"index":'
        self._fields, self._extras = fields, extras
        self._end = ',"usage":null}\n\n' if extras.usage else "}\n\n"
        self._text_end = f',"logprobs":null,"finish_reason":null}}]{self._end}'
        self._ending = _Ending(fields, extras.usage)
        self._seen: set[int] = set()
        self.end = self._ending.text

    def feed(self, number: int, event: Event) -> str:
        """See `Chunks`."""
        if isinstance(event, Delta):
            return self._delta(event)
        if isinstance(event, Finished):
            reason, matched = _json(event.reason), _json(event.matched)
            tail = f',"delta":{{}},"logprobs":null,"finish_reason":{reason},"stop_reason":{matched}}}]{self._end}'
            return f"{self._role(event.index)}{self._start}{event.index}{tail}"
        if isinstance(event, ToolDelta):
            return self._tool(event)
        if isinstance(event, Done):
            self._ending.take(event)
        if isinstance(event, Started) and self._extras.start:
            return _start_chunk(self._fields, event)
        return ""

    def _delta(self, event: Delta) -> str:
        wants_ids = self._extras.token_ids and event.token_ids
        if event.channel == "prompt" or not (event.text or event.logprobs or wants_ids):
            return ""
        text = quote(event.text)
        if event.channel == "answer":
            delta, name = f'{{"content":{text}}}', "content"
        else:
            delta, name = f'{{"reasoning_content":{text},"reasoning":{text}}}', "reasoning_content"
        tail = self._text_end
        if event.logprobs is not None:
            logprobs = _json({name: chat_entries(event.logprobs)})
            tail = f',"logprobs":{logprobs},"finish_reason":null}}]{self._end}'
        if wants_ids:
            tail = f',"token_ids":{_json(event.token_ids)}{tail}'
        role = "" if event.index in self._seen else self._role(event.index)
        return f'{role}{self._start}{event.index},"delta":{delta}{tail}'

    def _role(self, index: int) -> str:
        if index in self._seen:
            return ""
        self._seen.add(index)
        return f'{self._start}{index},"delta":{{"role":"assistant","content":""}}{self._text_end}'

    def _tool(self, event: ToolDelta) -> str:
        function: dict[str, Any] = {"arguments": event.arguments_fragment}
        call: dict[str, Any] = {"index": event.call_index, "function": function}
        if event.name is not None:
            function["name"] = event.name
        if event.id is not None:
            call |= {"id": event.id, "type": "function"}
        delta = _json({"tool_calls": [call]})
        return f'{self._role(event.index)}{self._start}{event.index},"delta":{delta}{self._text_end}'


class CompletionChunks:
    """Chunks of a text completion."""

    def __init__(self, head: Head, extras: Extras, *, num_samples: int) -> None:
        fields = head.fields("text_completion")
        self._start = f'data: {_json(fields)[:-1]},"choices":[{{"index":'
        self._fields, self._extras = fields, extras
        self._end = ',"usage":null}\n\n' if extras.usage else "}\n\n"
        self._text_end = f',"logprobs":null,"finish_reason":null}}]{self._end}'
        self._num_samples = num_samples
        self._legacy: dict[int, LegacyLogprobs] = {}
        self._ending = _Ending(fields, extras.usage)
        self.end = self._ending.text

    def feed(self, number: int, event: Event) -> str:
        """See `Chunks`."""
        if isinstance(event, Delta):
            wants_ids = self._extras.token_ids and event.token_ids
            if not (event.text or event.logprobs or wants_ids):
                return ""
            index, tail = number * self._num_samples + event.index, self._text_end
            if event.logprobs is not None:
                shaped = self._legacy.setdefault(index, LegacyLogprobs()).shape(event.logprobs)
                tail = f',"logprobs":{_json(shaped)},"finish_reason":null}}]{self._end}'
            if wants_ids:
                name = "prompt_token_ids" if event.channel == "prompt" else "token_ids"
                tail = f',"{name}":{_json(event.token_ids)}{tail}'
            return f'{self._start}{index},"text":{quote(event.text)}{tail}'
        if isinstance(event, Finished):
            index = number * self._num_samples + event.index
            reason, matched = _json(event.reason), _json(event.matched)
            tail = f'"logprobs":null,"finish_reason":{reason},"stop_reason":{matched}}}]{self._end}'
            return f'{self._start}{index},"text":"",{tail}'
        if isinstance(event, Done):
            self._ending.take(event)
        if isinstance(event, Started) and self._extras.start:
            return _start_chunk(self._fields, event)
        return ""


class EventStream(Response):
    """The response that plays a call to its client."""

    def __init__(self, call: Call, chunks: Chunks) -> None:
        super().__init__()
        self._call = call
        self._chunks = chunks
        self._keep_alive_s = call.served.settings.keep_alive_s
        self._begun = False
        self._last_write = 0.0
        self._silence: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write until the call ends or the client leaves."""
        with self._call.served.counted():
            try:
                await while_connected(receive, self._play(scope, receive, send))
            except ClientLeft:
                log.debug("the client of %s left", self._call.requests[0].id)

    async def _play(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._last_write = asyncio.get_running_loop().time()
        self._keep_alive(send)
        try:
            await self._write_events(send)
        except Exception as error:
            if not isinstance(error, TemperError):
                log.exception("request %s failed", self._call.requests[0].id)
                error = internal_error()
            if self._begun:
                await self._write(send, f"data: {_json(envelope(error))}\n\n".encode(), more=False)
            else:
                await error_response(error)(scope, receive, send)
        finally:
            for waiting in (self._silence, self._comment):
                if waiting is not None:
                    waiting.cancel()

    async def _write_events(self, send: Send) -> None:
        feed, held = self._chunks.feed, ""
        async with aclosing(self._call.events()) as events:
            async for number, event in events:
                text = feed(number, event)
                if not text:
                    continue
                if isinstance(event, Finished | Started):
                    held += text  # more follows at once, or waits for the first text: one write for all of it
                    continue
                await self._write(send, (held + text).encode())
                held = ""
        await self._write(send, (held + self._chunks.end()).encode() + DONE, more=False)

    async def _write(self, send: Send, body: bytes, *, more: bool = True) -> None:
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self._first_headers()})
        self._last_write = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": body, "more_body": more})

    def _first_headers(self) -> list[tuple[bytes, bytes]]:
        return [*HEADERS, *((name.encode(), value.encode()) for name, value in self._call.headers.items())]

    def _keep_alive(self, send: Send) -> None:
        """A comment whenever nothing was written for a while. A timer, since few streams need a task for it."""
        loop = asyncio.get_running_loop()
        due = self._last_write + self._keep_alive_s
        if loop.time() >= due:
            self._comment = loop.create_task(self._write(send, KEEP_ALIVE))
            due = loop.time() + self._keep_alive_s
        self._silence = loop.call_at(due, self._keep_alive, send)
