"""Streams of an OpenAI-compatible server to events: server-sent events, chunks, log-probabilities.

Pure translation of bytes that came; it opens no connection. It stands in the path of every token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json

from temper.errors import EngineFailure, TemperError, from_code
from temper.types import (
    Channel,
    Delta,
    Done,
    Event,
    Finished,
    FinishReason,
    MadeBy,
    Request,
    Started,
    Timings,
    TokenLogprob,
    ToolDelta,
    Usage,
)

MAX_LINE_BYTES = 64 << 20
UNKNOWN_ID = -1
"""Token id of a `TokenLogprob` where the server tells texts alone."""
LOWEST = -9999.0
_REASONS: dict[str, FinishReason] = {
    "stop": "stop", "length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls",
}  # fmt: skip


class EventLines:
    """Splits a body into the data of its server-sent events. One `data:` line is one event here."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data that `data` completes; comments and other fields are left out.

        Raises:
            EngineFailure: a line that never ends.
        """
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_BYTES:
            raise EngineFailure(f"the server's stream has a line of more than {MAX_LINE_BYTES} bytes")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]


def error_of(envelope: Any, status: int, retry_after_s: float | None = None) -> TemperError:
    """The error that a server's envelope and status stand for. OpenAI's words and ours are both understood."""
    inner = envelope.get("error", envelope) if isinstance(envelope, Mapping) else {}
    if not isinstance(inner, Mapping):
        inner = {"message": str(inner)}
    code, message = str(inner.get("code") or ""), str(inner.get("message") or f"the server answered {status}")
    param = inner.get("param") if isinstance(inner.get("param"), str) else _param_of(status)
    if status in (400, 413, 422) and ("context length" in message or "context size" in message):
        code = "context_length_exceeded"
    found = from_code(code, message, param=param, retry_after_s=retry_after_s)
    if type(found) is not EngineFailure or code == EngineFailure.code:
        return found  # a code of ours
    return from_code(_code_of(status), message, param=param, retry_after_s=retry_after_s)


def _code_of(status: int) -> str:
    """Our code for a status, where the server's own code says nothing to us."""
    if status == 404:
        return "not_found"
    if status in (408, 429):
        return "queue_full"
    if status == 503:
        return "unavailable"
    if status == 504:
        return "deadline_exceeded"
    return "invalid_request" if 400 <= status < 500 else "engine_failure"


def _param_of(status: int) -> str | None:
    return {401: "api_key", 402: "api_key", 403: "api_key", 404: "model"}.get(status)


class ChunkReader:
    """The chunks of one answer, as events."""

    def __init__(self, request: Request, name: str) -> None:
        self._request = request
        self._name = name
        self._is_chat = request.messages is not None
        self._echo_left: set[int] = set(range(request.n)) if request.echo else set()
        self._finished: set[int] = set()
        self._num_pieces = self._num_thoughts = 0
        self._usage: Usage | None = None
        self._made_by = MadeBy((name,))
        self._timings = Timings()
        self.started = False

    @property
    def is_complete(self) -> bool:
        """Every sample has ended."""
        return len(self._finished) == self._request.n

    def read(self, data: bytes) -> list[Event]:
        """The events of one chunk.

        Raises:
            TemperError: the chunk says that the stream broke, or is no chunk.
        """
        events: list[Event] = []
        try:
            chunk = _parsed(data)
            if "error" in chunk:
                raise error_of(chunk, int(chunk["error"].get("status", 500)) if "status" in chunk["error"] else 500)
            usage = chunk.get("usage")
            beyond = chunk.get("temper")
            if usage:
                self._usage = _usage(usage)
            if beyond:
                self._take_beyond(beyond)
            choices = chunk.get("choices") or ()
            if not self.started and (choices or usage or (beyond or {}).get("started")):
                self.started = True
                events.append(self._start(beyond))
            for choice in choices:
                self._choice(choice, events)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineFailure(f"the server sent what is no chunk: {data[:200]!r} ({error})") from None
        return events

    def done(self) -> Iterator[Event]:
        """What follows the last chunk."""
        if not self.started:
            self.started = True
            yield self._start(None)
        usage = self._usage or Usage(
            completion_tokens=self._num_pieces, reasoning_tokens=self._num_thoughts
        )  # the server told none: pieces are the best count there is
        yield Done(usage, self._timings, self._made_by)

    # -- inside ----------------------------------------------------------------------------------------

    def _start(self, beyond: Any) -> Started:
        told = (beyond or {}).get("started")
        if told:
            return Started(int(told["prompt_tokens"]), int(told["cached_tokens"]))
        usage = self._usage or Usage()
        return Started(usage.prompt_tokens, usage.cached_tokens)

    def _take_beyond(self, beyond: Mapping[str, Any]) -> None:
        """Another Temper tells more."""
        made, timings = beyond.get("made_by"), beyond.get("timings")
        if made:
            self._made_by = MadeBy(
                (self._name, *made["engines"]), made["version"], made["precision"], made["cache_hit"], made["preset"],
                made.get("branch"), tuple(made.get("escalated", ())), tuple(made["citations"]),
            )  # fmt: skip
        if timings:
            self._timings = Timings(**timings)

    def _choice(self, choice: Mapping[str, Any], events: list[Event]) -> None:
        index = choice["index"]
        if not 0 <= index < self._request.n:
            raise ValueError(f"choice {index} of {self._request.n}")
        if index in self._finished:
            return
        if self._is_chat:
            self._chat(index, choice, events)
        else:
            self._completion(index, choice, events)
        reason = choice.get("finish_reason")
        if reason is not None:
            self._finished.add(index)
            matched = choice.get("stop_reason")
            if reason not in _REASONS:
                matched = str(reason)  # `content_filter` and the like
            events.append(Finished(index, _REASONS.get(reason, "stop"), matched))

    def _chat(self, index: int, choice: Mapping[str, Any], events: list[Event]) -> None:
        delta = choice.get("delta") or {}
        ids = tuple(choice.get("token_ids") or ())
        logprobs = choice.get("logprobs") or {}
        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
        answer = delta.get("content") or ""
        entries = logprobs and (logprobs.get("content") or logprobs.get("reasoning_content"))
        found = _numbered(tuple(_chat_logprob(entry) for entry in entries), ids) if entries else None
        if thought:
            self._num_pieces += 1
            self._num_thoughts += 1
            events.append(Delta(index, thought, ids, found, "reasoning"))
            ids, found = (), None
        if answer or ids or found:
            self._num_pieces += 1
            side: Channel = "reasoning" if logprobs.get("reasoning_content") and not answer else "answer"
            events.append(Delta(index, answer, ids, found, side))
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            arguments = function.get("arguments") or ""
            events.append(ToolDelta(index, call["index"], call.get("id"), function.get("name"), arguments))

    def _completion(self, index: int, choice: Mapping[str, Any], events: list[Event]) -> None:
        text = choice.get("text") or ""
        ids = tuple(choice.get("token_ids") or ())
        logprobs = choice.get("logprobs")
        found = _legacy_logprobs(logprobs, self._request.logprobs or 0) if logprobs else None
        if index in self._echo_left and (text or found):
            self._echo_left.discard(index)
            echo, text, found = self._echoed(index, choice, text, found)
            events.append(echo)
        found = _numbered(found, ids) if found else found
        if text or ids or found:
            self._num_pieces += 1
            events.append(Delta(index, text, ids, found))

    def _echoed(
        self, index: int, choice: Mapping[str, Any], text: str, found: tuple[TokenLogprob, ...] | None
    ) -> tuple[Delta, str, tuple[TokenLogprob, ...] | None]:
        """The prompt at the beginning of the first piece, and what is left of text and log-probabilities.

        The server tells the prompt's ids where it can. Else a text prompt is known by its own length, and of
        a prompt of ids the whole first piece is taken, which is what servers send.
        """
        prompt, given = self._request.prompt, choice.get("prompt_token_ids")
        size = len(prompt) if isinstance(prompt, str) and text.startswith(prompt) else len(text)
        if given is not None:
            count = len(given)
        elif found is not None:
            count = _entries_within(found, len(text[:size].encode()))
        else:
            count = 0
        entries = None if found is None else _numbered(found[:count], tuple(given or ()))
        echo = Delta(index, text[:size], tuple(given or ()), entries, "prompt")
        return echo, text[size:], (found[count:] or None) if found is not None else None


def _parsed(data: bytes) -> Any:
    """JSON, by a parser three times as fast as Python's; half a surrogate pair, which some servers send, by the latter.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return from_json(data)
    except ValueError:
        return json.loads(data)


def _usage(given: Mapping[str, Any]) -> Usage:
    details = given.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or given.get("prompt_cache_hit_tokens") or 0
    reasoning = (given.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return Usage(given.get("prompt_tokens") or 0, cached, given.get("completion_tokens") or 0, reasoning)


def _numbered(entries: tuple[TokenLogprob, ...], ids: tuple[int, ...]) -> tuple[TokenLogprob, ...]:
    """`entries` with the ids of their tokens, where the server told as many."""
    if len(entries) != len(ids):
        return entries
    return tuple(
        TokenLogprob(number, entry.token, entry.raw, entry.logprob, entry.top)
        for entry, number in zip(entries, ids, strict=True)
    )


def _chat_logprob(entry: Mapping[str, Any]) -> TokenLogprob:
    return TokenLogprob(
        UNKNOWN_ID,
        entry["token"],
        _raw(entry),
        float(entry["logprob"]),
        tuple(
            TokenLogprob(UNKNOWN_ID, other["token"], _raw(other), float(other["logprob"]))
            for other in entry.get("top_logprobs") or ()
        ),
    )


def _raw(entry: Mapping[str, Any]) -> bytes:
    given = entry.get("bytes")
    return bytes(given) if given is not None else str(entry["token"]).encode()


def _legacy_logprobs(given: Mapping[str, Any], k: int) -> tuple[TokenLogprob, ...]:
    """Legacy completions' four lists, or chat's entries, which llama-server gives here too.

    In the lists the chosen token is among the alternatives even when it is not likely.
    """
    if "content" in given:
        return tuple(_chat_logprob(entry) for entry in given["content"] or ())
    tops = given.get("top_logprobs") or [None] * len(given["tokens"])
    found = []
    for text, value, top in zip(given["tokens"], given["token_logprobs"], tops, strict=True):
        likely = sorted((top or {}).items(), key=lambda item: -item[1])[:k]
        others = tuple(TokenLogprob(UNKNOWN_ID, *_text_and_raw(name), float(number)) for name, number in likely)
        found.append(TokenLogprob(UNKNOWN_ID, *_text_and_raw(text), None if value is None else float(value), others))
    return tuple(found)


def _text_and_raw(text: str) -> tuple[str, bytes]:
    """A token's text and bytes; `bytes:\\xf0` stands for bytes that are no whole character."""
    if text.startswith("bytes:\\x"):
        raw = bytes(int(pair, 16) for pair in re.findall(r"\\x([0-9a-fA-F]{2})", text))
        return raw.decode(errors="replace"), raw
    return text, text.encode()


def _entries_within(found: tuple[TokenLogprob, ...], num_bytes: int) -> int:
    """How many of the tokens make up the first `num_bytes` bytes."""
    count = 0
    while count < len(found) and num_bytes >= len(found[count].raw):
        num_bytes -= len(found[count].raw)
        count += 1
        if num_bytes == 0:
            break
    return count
