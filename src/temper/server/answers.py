"""Whole answers: the events of a call, gathered into the JSON that a client without streaming gets."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from temper.server.calls import Call
from temper.server.logprobs import LegacyLogprobs, chat_entries, extend
from temper.types import Delta, Done, Finished, FinishReason, MadeBy, Timings, ToolDelta, Usage


@dataclass(frozen=True, slots=True)
class Head:
    """What every answer and every chunk begins with."""

    id: str
    model: str
    fingerprint: str
    created: int = field(default_factory=lambda: int(time.time()))

    def fields(self, object_name: str) -> dict[str, Any]:
        """The fields in OpenAI's order."""
        return {
            "id": self.id,
            "object": object_name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


@dataclass(slots=True)
class _Choice:
    texts: dict[str, list[str]] = field(default_factory=lambda: {"prompt": [], "reasoning": [], "answer": []})
    all_text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    prompt_token_ids: list[int] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    chat_logprobs: dict[str, list[Any]] | None = None
    legacy: LegacyLogprobs = field(default_factory=LegacyLogprobs)
    legacy_logprobs: dict[str, list[Any]] | None = None
    reason: FinishReason | None = None
    matched: str | int | None = None

    def take(self, event: Delta, *, chat: bool) -> None:
        """Add new text and its log-probabilities."""
        self.texts[event.channel].append(event.text)
        self.all_text.append(event.text)
        (self.prompt_token_ids if event.channel == "prompt" else self.token_ids).extend(event.token_ids)
        if event.logprobs is None:
            return
        if not chat:
            self.legacy_logprobs = extend(self.legacy_logprobs, self.legacy.shape(event.logprobs))
        elif event.channel != "prompt":
            name = "content" if event.channel == "answer" else "reasoning_content"
            self.chat_logprobs = self.chat_logprobs or {"content": [], "reasoning_content": []}
            self.chat_logprobs[name] += chat_entries(event.logprobs)

    def take_tool(self, event: ToolDelta) -> None:
        """Add a fragment of a tool call."""
        while len(self.calls) <= event.call_index:
            self.calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = self.calls[event.call_index]
        call["id"] = event.id or call["id"]
        call["function"]["name"] = event.name or call["function"]["name"]
        call["function"]["arguments"] += event.arguments_fragment

    def ids(self) -> dict[str, list[int]]:
        """Token ids under vLLM's names; those of the prompt where it was echoed."""
        prompt = {"prompt_token_ids": self.prompt_token_ids} if self.prompt_token_ids else {}
        return {"token_ids": self.token_ids, **prompt}

    def text(self, channel: str) -> str:
        """All text of one channel."""
        return "".join(self.texts[channel])


async def _gather(call: Call, *, chat: bool) -> tuple[list[_Choice], list[Done]]:
    per_request = call.requests[0].n
    choices = [_Choice() for _ in range(per_request * len(call.requests))]
    done: list[Done] = []
    async for number, event in call.events():
        if isinstance(event, Delta):
            choices[number * per_request + event.index].take(event, chat=chat)
        elif isinstance(event, ToolDelta):
            choices[number * per_request + event.index].take_tool(event)
        elif isinstance(event, Finished):
            choice = choices[number * per_request + event.index]
            choice.reason, choice.matched = event.reason, event.matched
        elif isinstance(event, Done):
            done.append(event)
    return choices, done


async def chat_answer(call: Call, head: Head, *, token_ids: bool = False) -> dict[str, Any]:
    """The body of a chat completion.

    Raises:
        TemperError: as the call's events do.
    """
    choices, done = await _gather(call, chat=True)
    return {
        **head.fields("chat.completion"),
        "choices": [
            _chat_choice(index, choice) | (choice.ids() if token_ids else {}) for index, choice in enumerate(choices)
        ],
        "usage": usage_fields(event.usage for event in done),
        "temper": made_fields(done),
    }


def _chat_choice(index: int, choice: _Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text("answer"), "refusal": None}
    reasoning = choice.text("reasoning")
    if reasoning:
        message |= {"reasoning_content": reasoning, "reasoning": reasoning}
    if choice.calls:
        message["tool_calls"] = choice.calls
        message["content"] = message["content"] or None
    return {
        "index": index,
        "message": message,
        "logprobs": choice.chat_logprobs,
        "finish_reason": choice.reason,
        "stop_reason": choice.matched,
    }


async def completion_answer(call: Call, head: Head, *, token_ids: bool = False) -> dict[str, Any]:
    """The body of a text completion; choices of several prompts stand in the order of the prompts.

    Raises:
        TemperError: as the call's events do.
    """
    choices, done = await _gather(call, chat=False)
    return {
        **head.fields("text_completion"),
        "choices": [
            {
                "index": index,
                "text": "".join(choice.all_text),
                "logprobs": choice.legacy_logprobs,
                "finish_reason": choice.reason,
                "stop_reason": choice.matched,
                **(choice.ids() if token_ids else {}),
            }
            for index, choice in enumerate(choices)
        ],
        "usage": usage_fields(event.usage for event in done),
        "temper": made_fields(done),
    }


def usage_fields(usages: Iterable[Usage]) -> dict[str, Any]:
    """Token counts under OpenAI's and DeepSeek's names, summed over requests."""
    given = list(usages)
    prompt = sum(usage.prompt_tokens for usage in given)
    cached = sum(usage.cached_tokens for usage in given)
    completion = sum(usage.completion_tokens for usage in given)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": sum(usage.reasoning_tokens for usage in given)},
        "prompt_cache_hit_tokens": cached,
        "prompt_cache_miss_tokens": prompt - cached,
    }


def made_fields(done: list[Done]) -> dict[str, Any]:
    """Beyond OpenAI: who made the answer, and where its time went (of several prompts, the last one's)."""
    return {"made_by": _fields(done[-1].made_by), "timings": _fields(done[-1].timings)} if done else {}


def _fields(of: MadeBy | Timings) -> dict[str, Any]:
    """Flat, and not copied: `asdict` takes as long as all the rest of an answer's wording."""
    return {name: getattr(of, name) for name in of.__slots__}
