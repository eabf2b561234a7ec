"""The short way to ask, and to read what comes back: flat options to a `Request`, events to an `Answer`.

For whoever speaks Python to an engine: the SDK, the command line, load generators, combinators. It knows
the vocabulary alone; the HTTP server has its own translation, because other people's protocols are its job.
"""

from __future__ import annotations

import difflib
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from temper.errors import EngineFailure, Invalid
from temper.types import (
    Delta,
    Done,
    Event,
    Failed,
    Finished,
    FinishReason,
    Limits,
    MadeBy,
    MediaPart,
    Message,
    Request,
    Sampling,
    Started,
    Stop,
    TemperatureSchedule,
    Thinking,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolDelta,
    Usage,
)

Prompt = str | Sequence[int] | Sequence["Message | Mapping[str, Any]"]
"""Text to continue, token ids to continue, or a conversation to answer."""

_SAMPLING = frozenset(item.name for item in fields(Sampling))
_LIMITS = frozenset(item.name for item in fields(Limits))
_STOP = {"stop": "strings", "stop_token_ids": "token_ids", "ignore_eos": "ignore_eos"}
_THINKING = {"thinking": "enabled", "thinking_budget": "budget_tokens", "reasoning_effort": "effort"}
_REQUEST = frozenset(
    {"id", "tools", "tool_choice", "response_format", "n", "logprobs", "echo", "adapter", "priority", "deadline_s",
     "tenant", "extensions"}
)  # fmt: skip

OPTIONS = tuple(sorted({*_SAMPLING, *_LIMITS, *_STOP, *_THINKING, *_REQUEST}))
"""Every name that `ask` takes, spelled as the HTTP API spells it."""


def ask(prompt: Prompt, **options: Any) -> Request:
    """A `Request` from a prompt and flat options (`OPTIONS`): `ask("Once", max_tokens=20, temperature=0.7)`.

    Text and token ids are continued as they are; a list of messages is answered under the chat template.

    Raises:
        Invalid: an unknown option (the hint names the nearest), or a message that is no message.
    """
    groups: dict[str, dict[str, Any]] = {"sampling": {}, "limits": {}, "stop": {}, "thinking": {}, "request": {}}
    for name, value in options.items():
        if name in _SAMPLING:
            groups["sampling"][name] = value
        elif name in _LIMITS:
            groups["limits"][name] = value
        elif name in _STOP:
            groups["stop"][_STOP[name]] = value
        elif name in _THINKING:
            groups["thinking"][_THINKING[name]] = value
        elif name in _REQUEST:
            groups["request"][name] = value
        else:
            close = difflib.get_close_matches(name, OPTIONS, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(OPTIONS)}"
            raise Invalid(f"there is no option '{name}'", param=name, hint=hint)
    given = groups["request"]
    given.setdefault("id", f"ask-{uuid.uuid4().hex[:16]}")
    given["tools"] = tuple(given.get("tools", ()))
    return Request(
        **_prompt(prompt),
        sampling=_sampling(groups["sampling"]),
        limits=Limits(**groups["limits"]),
        stop=_stop(groups["stop"]),
        thinking=Thinking(**groups["thinking"]),
        **given,
    )


def message(value: Message | Mapping[str, Any]) -> Message:
    """A `Message` from a mapping in OpenAI's shape; a `Message` as it is.

    Raises:
        Invalid: no `role`, or a field that messages do not have.
    """
    if isinstance(value, Message):
        return value
    known = {item.name for item in fields(Message)}
    if not isinstance(value, Mapping) or "role" not in value or not known.issuperset(value):
        raise Invalid(
            f"a message is a mapping with 'role' and 'content', but is {str(value)[:80]!r}",
            param="messages",
            hint=f"its fields are {', '.join(sorted(known))}",
        )
    given = dict(value)
    if isinstance(given.get("content"), Sequence) and not isinstance(given["content"], str):
        given["content"], given["media"] = _content(given["content"])
    given["tool_calls"] = tuple(
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in given.get("tool_calls") or ()
    )
    return Message(**given)


def _content(parts: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[MediaPart, ...]]:
    """Text and media of a message whose content is a list of parts."""
    texts = [str(part["text"]) for part in parts if part.get("type") == "text"]
    media = []
    for part in parts:
        kind = str(part.get("type", ""))
        if kind != "text":
            source = part.get(kind, {})
            media.append(MediaPart(kind.removesuffix("_url"), source["url"] if "url" in source else str(source)))
    return "".join(texts), tuple(media)


def _prompt(prompt: Prompt) -> dict[str, Any]:
    if isinstance(prompt, str):
        return {"prompt": prompt}
    if prompt and all(isinstance(item, int) for item in prompt):
        return {"prompt": tuple(prompt)}
    if not prompt:
        raise Invalid("a prompt is text, token ids or messages, but is empty", param="prompt", hint="say something")
    return {"messages": tuple(message(item) for item in prompt)}  # type: ignore[arg-type]


def _sampling(given: dict[str, Any]) -> Sampling:
    schedule = given.get("temperature_schedule")
    if isinstance(schedule, Mapping):
        given["temperature_schedule"] = TemperatureSchedule(**schedule)
    elif isinstance(schedule, Sequence):
        given["temperature_schedule"] = TemperatureSchedule("list", tuple(schedule))
    bias = given.get("logit_bias")
    if isinstance(bias, Mapping):
        given["logit_bias"] = tuple((int(token), float(value)) for token, value in bias.items())
    return Sampling(**given)


def _stop(given: dict[str, Any]) -> Stop:
    strings = given.get("strings", ())
    given["strings"] = (strings,) if isinstance(strings, str) else tuple(strings or ())
    given["token_ids"] = tuple(given.get("token_ids", ()))
    return Stop(**given)


# -- what comes back -------------------------------------------------------------------------------


@dataclass(slots=True)
class Sample:
    """One of the `n` texts that a request asked for."""

    text: str = ""
    reasoning: str = ""
    prompt_text: str = ""
    """The prompt, where `echo` asked for it."""
    token_ids: list[int] = field(default_factory=list)
    """Of all channels, in order."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    matched: str | int | None = None


@dataclass(slots=True)
class Answer:
    """A whole answer: its samples, and what it took."""

    samples: list[Sample]
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)
    made_by: MadeBy = field(default_factory=MadeBy)

    @property
    def text(self) -> str:
        """The first sample's answer, without its thinking."""
        return self.samples[0].text

    @property
    def reasoning(self) -> str:
        """The first sample's thinking."""
        return self.samples[0].reasoning

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first sample ended."""
        return self.samples[0].finish_reason

    def __str__(self) -> str:
        return self.text


class Reading:
    """Puts an answer together from events, one at a time."""

    def __init__(self) -> None:
        self._samples: dict[int, Sample] = {}
        self.prompt_tokens = 0
        self.done: Done | None = None

    def take(self, event: Event) -> None:
        """Add one event.

        Raises:
            TemperError: the event says that the stream broke.
        """
        match event:
            case Delta():
                self._add(event)
            case ToolDelta():
                self._add_tool(event)
            case Finished():
                sample = self._sample(event.index)
                sample.finish_reason, sample.matched = event.reason, event.matched
            case Started():
                self.prompt_tokens = event.prompt_tokens
            case Failed():
                raise event.error
            case Done():
                self.done = event

    def answer(self) -> Answer:
        """The answer so far; whole once `done` is set."""
        samples = [self._samples[index] for index in sorted(self._samples)] or [Sample()]
        done = self.done or Done(Usage(prompt_tokens=self.prompt_tokens))
        return Answer(samples, done.usage, done.timings, done.made_by)

    def _sample(self, index: int) -> Sample:
        return self._samples.setdefault(index, Sample())

    def _add(self, delta: Delta) -> None:
        sample = self._sample(delta.index)
        sample.token_ids.extend(delta.token_ids)
        sample.logprobs.extend(delta.logprobs or ())
        match delta.channel:
            case "reasoning":
                sample.reasoning += delta.text
            case "prompt":
                sample.prompt_text += delta.text
            case _:
                sample.text += delta.text

    def _add_tool(self, delta: ToolDelta) -> None:
        calls = self._sample(delta.index).tool_calls
        if delta.call_index == len(calls):
            calls.append(ToolCall(delta.id or "", delta.name or "", delta.arguments_fragment))
        else:
            call = calls[delta.call_index]
            calls[delta.call_index] = ToolCall(call.id, call.name, call.arguments + delta.arguments_fragment)


async def collect(events: AsyncIterator[Event]) -> Answer:
    """The whole answer of a stream.

    Raises:
        TemperError: what broke the stream, or `EngineFailure` when it ended without saying so.
    """
    reading = Reading()
    async for event in events:
        reading.take(event)
    if reading.done is None:
        raise EngineFailure("an engine's stream must end with Done or Failed, but it just ended")
    return reading.answer()
