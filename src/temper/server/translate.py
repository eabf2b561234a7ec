"""HTTP bodies to requests. What an absent field means is left to the engine that answers."""

from __future__ import annotations

from temper.errors import Invalid
from temper.server import schemas
from temper.server.settings import ServerSettings
from temper.types import (
    Effort,
    Limits,
    MediaPart,
    Message,
    Request,
    Sampling,
    Stop,
    TemperatureSchedule,
    Thinking,
    ToolCall,
)

COMPLETION_TOKENS = 16
"""New tokens of a completion that names no limit: OpenAI's number."""

EFFORTS: dict[str, Effort] = {
    "none": "none",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}


def chat_request(
    body: schemas.ChatBody, id: str, adapter: str | None, tenant: str | None, settings: ServerSettings
) -> Request:
    """The request of a chat body.

    Raises:
        Invalid: more of something than this server takes.
    """
    _check_counts(body, settings, num_prompts=1)
    most = settings.max_messages
    if len(body.messages) > most:
        raise Invalid(f"{len(body.messages)} messages, the limit is {most}", param="messages")
    form = body.response_format
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    choice = body.tool_choice
    return Request(
        id=id,
        messages=messages(body.messages),
        tools=tuple(tool.model_dump(exclude_none=True) for tool in body.tools or ()),
        tool_choice=choice.model_dump() if isinstance(choice, schemas.NamedTool) else choice,
        response_format=form.model_dump(by_alias=True, exclude_none=True) if form and form.type != "text" else None,
        sampling=_sampling(body),
        stop=_stop(body),
        limits=Limits(limit, body.min_tokens or 0, body.graceful_end),
        thinking=_thinking(body),
        n=body.n or 1,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        adapter=adapter,
        priority=body.priority or 0,
        deadline_s=body.deadline_s,
        tenant=tenant,
        extensions=body.extensions or {},
    )


def completion_requests(
    body: schemas.CompletionBody, id: str, adapter: str | None, tenant: str | None, settings: ServerSettings
) -> list[Request]:
    """One request for each prompt of the body, in order.

    Raises:
        Invalid: more of something than this server takes, or nothing to complete.
    """
    prompts = _prompts(body.prompt)
    _check_counts(body, settings, num_prompts=len(prompts))
    limit = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    return [
        Request(
            id=id if len(prompts) == 1 else f"{id}-{i}",
            prompt=prompt,
            sampling=_sampling(body),
            stop=_stop(body),
            limits=Limits(limit, body.min_tokens or 0, body.graceful_end),
            n=body.n or 1,
            logprobs=body.logprobs,
            echo=bool(body.echo),
            adapter=adapter,
            priority=body.priority or 0,
            deadline_s=body.deadline_s,
            tenant=tenant,
            extensions=body.extensions or {},
        )
        for i, prompt in enumerate(prompts)
    ]


def messages(given: list[schemas.ChatMessage]) -> tuple[Message, ...]:
    """The conversation. `developer` is what newer clients call `system`; templates know the latter."""
    return tuple(
        Message(
            role="system" if m.role == "developer" else m.role,
            content=_text(m),
            reasoning_content=m.reasoning_content if m.reasoning_content is not None else m.reasoning,
            name=m.name,
            tool_calls=tuple(ToolCall(c.id, c.function.name, c.function.arguments) for c in m.tool_calls or ()),
            tool_call_id=m.tool_call_id,
            media=_media(m),
        )
        for m in given
    )


def _text(message: schemas.ChatMessage) -> str | None:
    if not isinstance(message.content, list):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, schemas.TextPart))


def _media(message: schemas.ChatMessage) -> tuple[MediaPart, ...]:
    found: list[MediaPart] = []
    for part in message.content if isinstance(message.content, list) else ():
        if isinstance(part, schemas.ImagePart):
            found.append(MediaPart("image", part.image_url.url))
        elif isinstance(part, schemas.AudioPart):
            found.append(MediaPart("audio", f"data:audio/{part.input_audio.format};base64,{part.input_audio.data}"))
    return tuple(found)


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> list[str | tuple[int, ...]]:
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise Invalid("the list of prompts is empty", param="prompt")
    if isinstance(prompt[0], int):
        return [tuple(token for token in prompt if isinstance(token, int))]
    several = [p if isinstance(p, str) else tuple(p) for p in prompt if not isinstance(p, int)]
    for i, one in enumerate(several):
        if isinstance(one, tuple) and not one:
            raise Invalid("the prompt has no tokens", param=f"prompt.{i}")
    return several


def _check_counts(body: schemas.Generation, settings: ServerSettings, *, num_prompts: int) -> None:
    if isinstance(body.stop, list) and len(body.stop) > settings.max_stop_strings:
        raise Invalid(f"{len(body.stop)} stop strings, the limit is {settings.max_stop_strings}", param="stop")
    if num_prompts > settings.max_prompts:
        raise Invalid(f"{num_prompts} prompts, the limit is {settings.max_prompts}", param="prompt")
    if num_prompts * (body.n or 1) > settings.max_samples:
        raise Invalid(
            f"{num_prompts} prompts with n = {body.n or 1}, the limit is {settings.max_samples} samples in all",
            param="n",
        )
    if len(body.logit_bias or ()) > settings.max_logit_bias:
        raise Invalid(
            f"{len(body.logit_bias or ())} tokens have a bias, the limit is {settings.max_logit_bias}",
            param="logit_bias",
        )


def _sampling(body: schemas.Generation) -> Sampling:
    schedule = body.temperature_schedule
    return Sampling(
        preset=body.preset,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=None if body.top_k is None else max(body.top_k, 0),
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        no_repeat_ngram_size=body.no_repeat_ngram_size,
        logit_bias=_bias(body.logit_bias or {}),
        temperature_schedule=None
        if schedule is None
        else TemperatureSchedule(schedule.kind, tuple(schedule.values), schedule.start, schedule.end, schedule.steps),
        seed=body.seed,
        num_beams=body.num_beams,
    )


def _bias(given: dict[str, float]) -> tuple[tuple[int, float], ...]:
    found = []
    for key, bias in given.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) <= schemas.MAX_INT):
            raise Invalid(
                f"'{key[:50]}' is no token id", param="logit_bias", hint='keys are token ids: {"50256": -100}'
            )
        found.append((int(key), bias))
    return tuple(sorted(found))


def _stop(body: schemas.Generation) -> Stop:
    return Stop(_strings(body.stop), tuple(body.stop_token_ids or ()), bool(body.ignore_eos))


def _strings(given: str | list[str] | None) -> tuple[str, ...]:
    strings = (given,) if isinstance(given, str) else tuple(given or ())
    if "" in strings:
        raise Invalid("a stop string is empty: it would end every answer before it begins", param="stop")
    return strings


def _thinking(body: schemas.ChatBody) -> Thinking:
    """The four ways to ask for thinking, which must not contradict one another."""
    asked: dict[str, bool] = {}
    if body.thinking is not None:
        asked["thinking"] = body.thinking.type == "enabled"
    if body.reasoning_effort is not None:
        asked["reasoning_effort"] = body.reasoning_effort != "none"
    for key, value in (body.chat_template_kwargs or {}).items():
        asked[f"chat_template_kwargs.{key}"] = value
    if len(set(asked.values())) > 1:
        raise Invalid(f"{' and '.join(asked)} contradict each other", param=next(iter(asked)))
    effort = asked.pop("reasoning_effort", None)
    return Thinking(
        # An effort alone does not switch thinking on where the template would not; "none" switches it off.
        enabled=next(iter(asked.values()), None if effort else effort),
        budget_tokens=body.thinking.budget_tokens if body.thinking else None,
        effort=None if body.reasoning_effort is None else EFFORTS[body.reasoning_effort],
    )
