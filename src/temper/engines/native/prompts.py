"""From a Request to the numbers a step needs: checks, template, tokens, rules.

Everything here may take long (a tokenizer reads megabytes) and so runs off the event loop. It is the
one place that says no to a request for what it asks; whether there is room for it now is
`admission.py`'s matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from temper.engines.base import Capabilities
from temper.engines.native.adapters import Reader
from temper.engines.native.output import OutputRules, StreamDecoder
from temper.engines.native.sampling import PresetLookup, resolve
from temper.engines.native.scheduler import StepLimits
from temper.engines.native.template import ChatTemplate
from temper.errors import ContextTooLong, Invalid, OutOfMemory, Unsupported
from temper.kernels.executor import Executor, SamplerParams
from temper.types import Message, Request

if TYPE_CHECKING:
    from temper.profile.schema import SteppedEngine


class Tokenizer(Protocol):
    """What the engine asks of a checkpoint's tokenizer."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A loaded checkpoint with its executor: all that the engine runs."""

    name: str
    executor: Executor
    tokenizer: Tokenizer
    decoder: Callable[[], StreamDecoder]
    template: ChatTemplate | None
    context_length: int
    limits: StepLimits
    generation_defaults: Mapping[str, float] = field(default_factory=dict)
    presets: PresetLookup
    read_adapter: Reader | None = None
    """Reads adapters that fit this model; None: it takes none."""
    precision: str = "as-stored"
    exactness: str = "reproducible"
    details: Mapping[str, Any] = field(default_factory=dict)
    """Resolved values for run records: threads, blocks, ISA, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that broke no rule, in tokens."""

    prompt: NDArray[np.int32]
    prompt_text: str | None
    params: tuple[SamplerParams, ...]
    rules: OutputRules
    preset: str | None


def capabilities(model: Model, section: SteppedEngine) -> Capabilities:
    """What the engine can do with this model."""
    reasoning = section.reasoning
    source = model.template.source if model.template is not None else ""
    return Capabilities(
        model=model.name,
        context_length=model.context_length,
        logprobs=True,
        max_logprobs=section.admission.max_logprobs,
        echo=True,
        max_n=section.admission.max_samples,
        seed=True,
        thinking=reasoning.open_tag in source or reasoning.close_tag in source,
        tokenize=True,
        eos_token=model.tokenizer.decode(model.tokenizer.eos_ids[:1]) or None,
        score=True,
        trace=True,
        exactness=model.exactness,
    )


def prepare(request: Request, model: Model, section: SteppedEngine) -> Prepared:
    """Check, render and tokenize.

    Raises:
        Invalid: a field breaks a rule; `param` names it.
        Unsupported: the request asks for what this engine cannot do.
        ContextTooLong: prompt and answer do not fit the context.
        OutOfMemory: they would not fit the KV budget even alone.
    """
    # An engine that has the adapter asked for has taken it out of the request.
    can = capabilities(model, section)
    _check_fields(request, section, can)
    text, ids = _prompt_of(request, model, section)
    prompt = np.asarray(ids, dtype=np.int32)
    max_tokens = check_room(len(ids), request.limits.max_tokens, model, _default_max_tokens(request, model, section))
    chosen = resolve(
        request.sampling, section.sampling, model.generation_defaults, model.presets, model.executor.vocab_size
    )
    stop, limits, guard = request.stop, request.limits, section.guard
    min_tokens = min(limits.min_tokens, max_tokens)
    eos = () if stop.ignore_eos else model.tokenizer.eos_ids
    stop_ids = tuple(dict.fromkeys((*eos, *stop.token_ids)))
    splits = can.thinking and (request.messages is not None or request.thinking.enabled is True)
    reasoning = section.reasoning
    graceful = guard.graceful_end if limits.graceful_end is None else limits.graceful_end
    rules = OutputRules(
        decoder=model.decoder,
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        stop_strings=stop.strings,
        stop_ids=frozenset(stop_ids),
        named_stop_ids=frozenset(stop.token_ids),
        tags=(reasoning.open_tag, reasoning.close_tag) if splits else None,
        thinking_opened=splits and text.rstrip().endswith(reasoning.open_tag),
        budget=_budget(request, section) if splits else None,
        # A blank line after the tag, as the models were taught, so that the answer proper comes next.
        close_ids=tuple(model.tokenizer.encode(reasoning.close_tag + "\n\n", add_special_tokens=False))
        if splits
        else (),
        graceful_from=int(max_tokens * (1 - guard.graceful_window)) if graceful else None,
        # Who ignores the end of text wants a length, not a text: load generators do.
        guard=(guard.loop_ngram, guard.loop_repeats) if guard.loop_guard and not stop.ignore_eos else None,
        temperature=chosen.temperature,
        schedule=chosen.schedule,
    )
    return Prepared(
        prompt=prompt,
        prompt_text=text if request.echo else None,
        params=tuple(chosen.params(i, min_tokens, stop_ids) for i in range(request.n)),
        rules=rules,
        preset=chosen.preset,
    )


def check_room(num_prompt: int, max_tokens: int | None, model: Model, default: int) -> int:
    """New tokens that a sample may have: `max_tokens`, or of `default` as many as there is room for.

    Raises what `prepare` does when they do not fit.
    """
    context = model.context_length
    if num_prompt == 0:
        raise Invalid("the prompt is empty; send at least one token", param="prompt")
    wanted = 1 if max_tokens is None else max_tokens
    if num_prompt + wanted > context:
        raise ContextTooLong(
            f"the context holds {context} tokens; the prompt has {num_prompt} and the answer asks for {wanted}",
            param="messages" if max_tokens is None else "max_tokens",
            hint="shorten the prompt or lower max_tokens",
        )
    if max_tokens is None:
        wanted = min(default, context - num_prompt)
    pool = model.executor.num_blocks * model.executor.block_tokens
    # The last token is never computed, so its place in the cache is not needed.
    if num_prompt + max(wanted - 1, 0) > pool:
        raise OutOfMemory(
            f"the KV budget holds {pool} tokens; the prompt has {num_prompt} and the answer asks for {wanted}",
            hint="shorten the request or raise kv.budget_bytes",
        )
    return wanted


def _default_max_tokens(request: Request, model: Model, section: SteppedEngine) -> int:
    preset = request.sampling.preset or section.sampling.preset
    return (preset and model.presets(preset).max_tokens) or section.admission.default_max_tokens


def prompt_ids(request: Request, model: Model, section: SteppedEngine) -> list[int]:
    """The request's prompt in tokens."""
    return _prompt_of(request, model, section)[1]


def _check_fields(request: Request, section: SteppedEngine, can: Capabilities) -> None:
    limits = section.admission
    if request.tools and request.tool_choice != "none":
        raise Unsupported(f"model '{can.model}' has no tool calling here", param="tools", hint="leave out 'tools'")
    kind = (request.response_format or {}).get("type", "text")
    if kind != "text":
        raise Unsupported(
            f"response_format '{kind}' needs the capability 'grammar', which engine '{section.kind}' has not",
            param="response_format",
            hint="leave it out, or use type 'text'",
        )
    if unknown := sorted(request.extensions):
        raise Unsupported(
            f"engine '{section.kind}' knows no extensions, got {', '.join(map(repr, unknown[:5]))}",
            param="extensions",
            hint="leave them out",
        )
    if (request.sampling.num_beams or 1) > 1:
        raise Unsupported(f"num_beams above 1 needs the capability 'beams', which engine '{section.kind}' has not",
                          param="num_beams", hint="use n instead")  # fmt: skip
    if request.adapter is not None:
        raise Unsupported(f"model '{can.model}' lacks the capability 'adapters'", param="adapter")
    if any(message.media for message in request.messages or ()):
        raise Unsupported(f"model '{can.model}' takes text only, the messages hold media", param="messages")
    if request.thinking.enabled and not can.thinking:
        raise Unsupported(f"model '{can.model}' has no thinking channel", param="thinking")
    _within("n", request.n, 1, limits.max_samples)
    if request.logprobs is not None:
        _within("logprobs", request.logprobs, 0, limits.max_logprobs)
    _within("stop", len(request.stop.strings), 0, limits.max_stop_strings, "strings")
    _within("stop_token_ids", len(request.stop.token_ids), 0, 4096, "ids")
    if not all(request.stop.strings):
        raise Invalid("a stop string must not be empty", param="stop")
    if request.limits.max_tokens is not None:
        _within("max_tokens", request.limits.max_tokens, 0, 1 << 31)
    _within("min_tokens", request.limits.min_tokens, 0, 1 << 31)
    if request.thinking.budget_tokens is not None:
        _within("thinking.budget_tokens", request.thinking.budget_tokens, 0, 1 << 31)


def _within(param: str, value: int, low: int, high: int, what: str = "") -> None:
    if not low <= value <= high:
        raise Invalid(f"{param} must be between {low} and {high}{what and ' ' + what}, got {value}", param=param)


def _prompt_of(request: Request, model: Model, section: SteppedEngine) -> tuple[str, list[int]]:
    if (request.messages is None) == (request.prompt is None):
        raise Invalid("give either messages or prompt, and only one of them", param="messages")
    longest = section.admission.max_prompt_bytes
    if request.messages is not None:
        if not request.messages:
            raise Invalid("messages must not be empty", param="messages")
        _check_bytes(sum(_num_bytes(m.content) + _num_bytes(m.reasoning_content) for m in request.messages),
                     longest, "messages")  # fmt: skip
        thinking = False if request.thinking.effort == "none" else request.thinking.enabled
        text = _render(request.messages, thinking, model)
        if thinking and not text.rstrip().endswith(section.reasoning.open_tag):
            # Asked for by name, so not left to the model's mood: R1 sometimes skips thinking otherwise.
            text += section.reasoning.open_tag + "\n"
        return text, _encode(model, text, "messages", add_special_tokens=False)
    if isinstance(request.prompt, str):
        _check_bytes(_num_bytes(request.prompt), longest, "prompt")
        return request.prompt, _encode(model, request.prompt, "prompt", add_special_tokens=True)
    ids = list(request.prompt or ())
    if len(ids) > model.context_length:
        raise ContextTooLong(
            f"the context holds {model.context_length} tokens; the prompt has {len(ids)}", param="prompt"
        )
    check_ids(ids, model.executor.vocab_size)
    return (model.tokenizer.decode(ids) if request.echo else ""), ids


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raise Invalid where a token id is outside the vocabulary."""
    wrong = next((i for i in ids if not 0 <= i < vocab_size), None)
    if wrong is not None:
        raise Invalid(f"token ids must be between 0 and {vocab_size - 1}, got {wrong}", param="prompt")


def _render(messages: Sequence[Message], thinking: bool | None, model: Model) -> str:
    if model.template is None:
        raise Unsupported(f"model '{model.name}' has no chat template", param="messages", hint="send a prompt instead")
    variables = {} if thinking is None else {"enable_thinking": thinking}
    return model.template.render(messages, add_generation_prompt=True, variables=variables)


def _encode(model: Model, text: str, param: str, *, add_special_tokens: bool) -> list[int]:
    # No token is longer than a few hundred bytes: what cannot fit is refused by its size alone where it is
    # hopeless, and after tokenizing otherwise.
    try:
        return model.tokenizer.encode(text, add_special_tokens=add_special_tokens)
    except UnicodeEncodeError as error:
        raise Invalid(f"{param} is not valid Unicode: {error.reason}", param=param) from error


def _num_bytes(text: str | None) -> int:
    return len(text.encode("utf-8", "surrogatepass")) if text else 0


def _check_bytes(size: int, longest: int, param: str) -> None:
    if size > longest:
        raise Invalid(f"{param} may have {longest} bytes, got {size}", param=param, hint="send less text")


def _budget(request: Request, section: SteppedEngine) -> int | None:
    thinking, reasoning = request.thinking, section.reasoning
    if thinking.enabled is False or thinking.effort == "none":
        return 0
    if thinking.budget_tokens is not None:
        return thinking.budget_tokens
    by_effort = {
        "low": reasoning.low_budget_tokens,
        "medium": reasoning.medium_budget_tokens,
        "high": reasoning.high_budget_tokens,
    }
    return by_effort[thinking.effort] if thinking.effort else reasoning.budget_tokens
