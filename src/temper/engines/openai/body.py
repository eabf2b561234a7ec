"""Requests to JSON bodies of OpenAI's API, in the dialect of one server.

What the dialect has no word for is refused by name, never left out, unless it asks for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from temper.engines.base import Capabilities
from temper.engines.openai.dialects import Dialect
from temper.errors import Invalid, Unsupported
from temper.types import NEUTRAL, MediaPart, Message, Request


def check(request: Request, can: Capabilities, dialect: Dialect) -> None:
    """What can be said before anything is sent.

    Raises:
        Invalid: the request breaks a rule, or asks for what this server does not offer.
    """
    if (request.messages is None) == (request.prompt is None):
        raise Invalid("exactly one of 'messages' and 'prompt' is needed", param="messages")
    if not 1 <= request.n <= can.max_n:
        raise Invalid(f"'n' is {request.n}, allowed are 1 to {can.max_n}", param="n")
    most = can.max_logprobs if can.logprobs else -1
    if request.logprobs is not None and not 0 <= request.logprobs <= most:
        raise Unsupported(f"'logprobs' is {request.logprobs}, the most this server gives is {most}", param="logprobs")
    media = {part.kind for message in request.messages or () for part in message.media}
    is_ids = request.prompt is not None and not isinstance(request.prompt, str)
    bare = request.prompt is not None
    for param, is_asked, is_offered in (
        ("messages", bool(media), media.issubset(can.media)),
        ("tools", bool(request.tools), can.tools and not bare),
        ("response_format", (request.response_format or {}).get("type", "text") != "text", can.grammar and not bare),
        ("echo", request.echo, can.echo and bare),
        ("seed", request.sampling.seed is not None, can.seed),
        ("num_beams", (request.sampling.num_beams or 1) > 1, can.beams),
        ("thinking", request.thinking.enabled is True, can.thinking and not bare),
        ("prompt", is_ids, dialect.token_prompts),
        ("prompt", bare, not dialect.chat_only),
    ):
        if is_asked and not is_offered:
            raise Unsupported(
                f"the {dialect.name} server '{can.model}' does not offer what '{param}' asks for", param=param
            )


def body(request: Request, model: str, dialect: Dialect) -> dict[str, Any]:
    """The whole body.

    Raises:
        Unsupported: a field is set that the dialect has no word for.
    """
    found: dict[str, Any] = {
        "model": request.adapter or model,
        "stream": True,
        "stream_options": {"include_usage": True} | ({"include_start": True} if dialect.tells_start else {}),
    }
    if dialect.tells_token_ids:
        found["return_token_ids"] = True
    if request.messages is not None:
        found["messages"] = messages(request.messages)
        if request.logprobs is not None:
            found |= {"logprobs": True, "top_logprobs": request.logprobs}
    else:
        found["prompt"] = request.prompt if isinstance(request.prompt, str) else list(request.prompt or ())
        if request.logprobs is not None:
            found["logprobs"] = request.logprobs
        if request.echo:
            found["echo"] = True
    for name, value in _common(request):
        found[name] = value
    for name, value in _beyond(request):
        if name not in dialect.fields:
            if value == NEUTRAL.get(name):  # a server without the field does that already
                continue
            raise Unsupported(
                f"'{name}' is set, but {dialect.name} servers have no such field", param=name, hint="leave it out"
            )
        found[dialect.fields[name]] = value
    return found


def _common(request: Request) -> Iterator[tuple[str, Any]]:
    """Fields that OpenAI's API has."""
    sampling = request.sampling
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed"):
        if (value := getattr(sampling, name)) is not None:
            yield name, value
    if sampling.logit_bias:
        yield "logit_bias", {str(token): bias for token, bias in sampling.logit_bias}
    if request.n != 1:
        yield "n", request.n
    if request.stop.strings:
        yield "stop", list(request.stop.strings)
    if request.limits.max_tokens is not None:
        yield "max_tokens", request.limits.max_tokens
    if request.tools:
        yield "tools", [dict(tool) for tool in request.tools]
    if request.tool_choice is not None:
        yield "tool_choice", request.tool_choice
    if request.response_format is not None:
        yield "response_format", dict(request.response_format)


def _beyond(request: Request) -> Iterator[tuple[str, Any]]:
    """Fields that are set and that OpenAI's API does not have."""
    sampling, thinking = request.sampling, request.thinking
    for name in ("top_k", "min_p", "repetition_penalty", "no_repeat_ngram_size", "preset", "num_beams"):
        if (value := getattr(sampling, name)) is not None:
            yield name, value
    if sampling.temperature_schedule is not None:
        yield "temperature_schedule", asdict(sampling.temperature_schedule)
    if request.stop.token_ids:
        yield "stop_token_ids", list(request.stop.token_ids)
    if request.stop.ignore_eos:
        yield "ignore_eos", True
    if request.limits.min_tokens:
        yield "min_tokens", request.limits.min_tokens
    if request.limits.graceful_end is not None:
        yield "graceful_end", request.limits.graceful_end
    if request.priority:
        yield "priority", request.priority
    if request.extensions:
        yield "extensions", dict(request.extensions)
    if thinking.effort is not None:
        yield "reasoning_effort", thinking.effort
    if thinking.enabled is not None or thinking.budget_tokens is not None:
        asked: dict[str, Any] = {"type": "disabled" if thinking.enabled is False else "enabled"}
        if thinking.budget_tokens is not None:
            asked["budget_tokens"] = thinking.budget_tokens
        yield "thinking", asked


def messages(given: Sequence[Message]) -> list[dict[str, Any]]:
    """A conversation in OpenAI's shape."""
    return [_message(message) for message in given]


def _message(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.media:
        text = [{"type": "text", "text": message.content}] if message.content else []
        found["content"] = [*text, *(_media(part) for part in message.media)]
    for name in ("reasoning_content", "name", "tool_call_id"):
        if (value := getattr(message, name)) is not None:
            found[name] = value
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return found


def _media(part: MediaPart) -> dict[str, Any]:
    if part.kind == "audio" and part.url.startswith("data:audio/") and ";base64," in part.url:
        head, _, data = part.url.partition(";base64,")
        return {"type": "input_audio", "input_audio": {"data": data, "format": head.removeprefix("data:audio/")}}
    return {"type": f"{part.kind}_url", f"{part.kind}_url": {"url": part.url}}
