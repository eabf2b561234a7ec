"""The vocabulary every room shares: requests, events, usage.

Plain frozen data. It knows nothing of HTTP, of profiles or of any engine; whoever speaks another
protocol translates to and from these types at its own door.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from temper.errors import TemperError

Channel = Literal["prompt", "reasoning", "answer"]
"""Where text belongs: the echoed prompt, the model's thinking, or the answer proper."""

FinishReason = Literal["stop", "length", "tool_calls"]
"""Why one sample ended, in OpenAI's words. A cancelled or broken sample has none: it ends the stream."""

Effort = Literal["none", "low", "medium", "high"]

CacheState = Literal["hit", "miss", "bypass"]
"""`bypass`: this request may not be answered from the cache, nor kept there."""


# -- what is asked ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MediaPart:
    """A piece of a message that is not text. Passed on to engines that take it, refused by the others."""

    kind: str
    """`image`, `audio`, …"""
    url: str
    """A data URL or a link, as the caller gave it."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function call an assistant message made."""

    id: str
    name: str
    arguments: str
    """JSON text, exactly as the model wrote it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str | None = None
    reasoning_content: str | None = None
    """The thinking of an earlier assistant turn; templates decide whether to show it again."""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    media: tuple[MediaPart, ...] = ()


@dataclass(frozen=True, slots=True)
class TemperatureSchedule:
    """A temperature that changes while generating (spec D1).

    `list`: `values[i]` at step i, the last one for ever after. `linear` and `cosine`: from `start` to
    `end` over `steps` tokens, then `end`. `paragraph`: `start` at the beginning of each paragraph,
    falling linearly to `end` over `steps` tokens inside it.
    """

    kind: Literal["list", "linear", "cosine", "paragraph"]
    values: tuple[float, ...] = ()
    start: float = 1.0
    end: float = 0.4
    steps: int = 64


@dataclass(frozen=True, slots=True)
class Sampling:
    """Everything that shapes the choice of tokens. `None` means: whatever the engine's profile says."""

    preset: str | None = None
    """A task preset by name (`legal`, `dialogue`, …); fields set here override it."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    """0 switches the filter off."""
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    temperature_schedule: TemperatureSchedule | None = None
    seed: int | None = None
    num_beams: int | None = None


NEUTRAL: Final[Mapping[str, float]] = MappingProxyType(
    {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "no_repeat_ngram_size": 0,
    }
)
"""Values of `Sampling` that change nothing: tokens are drawn as the model says."""


@dataclass(frozen=True, slots=True)
class Stop:
    """What ends a sample besides its length."""

    strings: tuple[str, ...] = ()
    token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be generated, and how the end is made."""

    max_tokens: int | None = None
    min_tokens: int = 0
    graceful_end: bool | None = None
    """Near the limit, stop where a sentence is complete (spec D7). None: as the profile says."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """Whether and how long the model may think (spec D8). None: as the profile and the template say."""

    enabled: bool | None = None
    budget_tokens: int | None = None
    effort: Effort | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One piece of work for an engine: either `messages` or `prompt`, never both."""

    id: str
    messages: tuple[Message, ...] | None = None
    prompt: str | tuple[int, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    response_format: Mapping[str, Any] | None = None
    sampling: Sampling = Sampling()
    stop: Stop = Stop()
    limits: Limits = Limits()
    thinking: Thinking = Thinking()
    n: int = 1
    logprobs: int | None = None
    """None: no log-probabilities; k ≥ 0: of the chosen token and of the k most likely ones."""
    echo: bool = False
    """Return the prompt too, with its own log-probabilities when `logprobs` is set."""
    adapter: str | None = None
    priority: int = 0
    """Lower runs first, as in vLLM."""
    deadline_s: float | None = None
    """Seconds after arrival when the caller no longer wants an answer."""
    tenant: str | None = None
    extensions: Mapping[str, Any] = field(default_factory=dict)


# -- what comes back -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with its natural-log probability under the model's raw distribution (before sampling).

    The alternatives in `top` carry no alternatives of their own.
    """

    token_id: int
    token: str
    """The token's text; bytes that are no whole character are shown as U+FFFD, see `raw`."""
    raw: bytes
    logprob: float | None
    """None for the first prompt token, which nothing predicts."""
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `cached_tokens` is the part of the prompt that came from the prefix cache."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the seconds of a request went, as the engine that computed it saw them."""

    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    num_preemptions: int = 0


@dataclass(frozen=True, slots=True)
class MadeBy:
    """How an answer came to be: enough to reproduce it and to explain it."""

    engines: tuple[str, ...] = ()
    """The path of engine names, outermost first."""
    version: str | None = None
    precision: str | None = None
    cache_hit: bool = False
    preset: str | None = None
    branch: str | None = None
    """Which way it took through the tree: arms, routes and replicas by name, outermost first, joined by `/`."""
    escalated: tuple[str, ...] = ()
    """Why a cascade did not keep earlier answers, one `step: reason` each."""
    citations: tuple[Mapping[str, Any], ...] = ()
    adapter: str | None = None
    """The adapter that the model had, as `name@version`."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The engine took the request. Always the first event."""

    queue_position: int = 0
    cache: CacheState | None = None
    """What the response cache in front of the engine did, where there is one."""


@dataclass(frozen=True, slots=True)
class Started:
    """Work began; the prompt has been tokenized."""

    prompt_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of sample `index`. Text may lag behind tokens while a character or a stop is undecided."""

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    channel: Channel = "answer"


@dataclass(frozen=True, slots=True)
class ToolDelta:
    """A fragment of a tool call. `id` and `name` come with the first fragment of each call."""

    index: int
    call_index: int
    id: str | None
    name: str | None
    arguments_fragment: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Sample `index` is complete."""

    index: int
    reason: FinishReason
    matched: str | int | None = None
    """The stop string or stop token that ended it; `"loop_guard"` or `"graceful_end"` when those did."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The stream broke. Always the last event, and the only way that a stream says so."""

    error: TemperError


@dataclass(frozen=True, slots=True)
class Done:
    """Everything that was asked for has been sent. Always the last event of a whole stream."""

    usage: Usage
    timings: Timings = Timings()
    made_by: MadeBy = MadeBy()


Event = Accepted | Started | Delta | ToolDelta | Finished | Failed | Done
