"""The seam that everything hangs on: an Engine turns a Request into a stream of Events.

Leaves compute or call out, combinators wrap other engines, applications are engines over engines.
The server, the load generator, the judge and the rollout see only this.

A stream is `Accepted`, `Started`, deltas and finishes, then exactly one `Done` or `Failed`.
`generate` raises `Invalid` or `Rejected` before its first event; after that, trouble is a `Failed`.
Closing the iterator cancels the work and frees everything that it held.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from temper.errors import Unsupported
from temper.types import Event, Message, Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from temper.engines.tracing import EngineTrace
    from temper.profile.schema import Profile


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can truly do. What is False here is refused with `Unsupported`, never ignored."""

    model: str
    """The name under which the engine is served when nobody names it otherwise."""
    context_length: int | None = None
    logprobs: bool = False
    max_logprobs: int = 0
    echo: bool = False
    tools: bool = False
    grammar: bool = False
    adapters: tuple[str, ...] = ()
    """Names that `Request.adapter` may have."""
    adapter_versions: tuple[str, ...] = ()
    """A hash of the content of each of `adapters`, so that whoever keeps answers notices another content."""
    media: tuple[str, ...] = ()
    max_n: int = 1
    beams: bool = False
    seed: bool = False
    thinking: bool = False
    """The checkpoint's template and tokenizer know a thinking channel."""
    tokenize: bool = False
    eos_token: str | None = None
    """Text of the token that ends an answer, for clients that tokenize through the engine."""
    embed: bool = False
    score: bool = False
    response_cache: bool = False
    """Whole answers may be kept: takes the extension `cache` (`on`, `no-store`), says in `Accepted` what it did."""
    trace: bool = False
    """`start_trace` and `stop_trace` tell where the engine's own time goes."""
    exactness: str = "unknown"
    """`batch-invariant`, `reproducible` (same company, same tokens) or `unknown`."""


@dataclass(frozen=True, slots=True)
class Health:
    """`alive`: the process is there. `ready`: a step completed lately, or could."""

    alive: bool
    ready: bool
    reason: str = ""
    engines: Mapping[str, Health] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of an engine. Gauges are instantaneous; `*_total` only grow while a process lives."""

    num_running: int = 0
    num_waiting: int = 0
    kv_used_bytes: int = 0
    """Held by sequences; blocks kept only by the prefix cache do not count."""
    kv_budget_bytes: int = 0
    kv_usage: float = 0.0
    """0 to 1: `kv_used_bytes` of `kv_budget_bytes`."""
    kv_peak_bytes: int = 0
    """Most bytes of the pool ever in use at once, prefix cache included; never above the budget.
    Exported as `temper:kv_peak_bytes`."""
    prefix_queries_total: int = 0
    """Prompt tokens looked up in the prefix cache."""
    prefix_hits_total: int = 0
    """Prompt tokens found there."""
    preemptions_total: int = 0
    prompt_tokens_total: int = 0
    generation_tokens_total: int = 0
    steps_total: int = 0
    last_step_age_s: float | None = None
    children: Mapping[str, Stats] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of given tokens under an engine.

    `logprobs[i]` is log p(tokens[i + 1] | tokens[: i + 1]), float32 [T - 1].
    With `top_k=None` the whole vocabulary comes back: `top_ids` is None and `top_logprobs` is
    float32 [T - 1, V]; else both are [T - 1, top_k], most likely first.
    """

    logprobs: NDArray[np.float32]
    top_ids: NDArray[np.int32] | None
    top_logprobs: NDArray[np.float32]


class Engine(ABC):
    """Anything that turns a request into a stream of events. See the module docstring for the rules."""

    name: str = "engine"

    @abstractmethod
    def generate(self, request: Request) -> AsyncIterator[Event]:
        """Stream the events of `request`.

        Implementations are async generators, so errors come at the first `__anext__`.

        Raises:
            Invalid: the request breaks a rule, or asks for what `capabilities` denies.
            Rejected: not now; `retry_after_s` says when.
        """

    def prepare(self) -> None:  # noqa: B027 (most kinds have nothing to begin)
        """Begin what `start` waits for, without waiting: for a caller who has something else to do first.

        Needs no event loop. `start` or `stop` comes next.
        """

    @abstractmethod
    async def start(self) -> None:
        """Make ready to serve. Returns when requests are taken; raises when that cannot be."""

    @abstractmethod
    async def stop(self, drain_s: float = 0.0) -> None:
        """Take nothing new, let running work finish for `drain_s` seconds, then free everything."""

    @abstractmethod
    def health(self) -> Health:
        """Cheap; never waits."""

    @abstractmethod
    def capabilities(self) -> Capabilities:
        """Valid once started."""

    @abstractmethod
    def stats(self) -> Stats:
        """Cheap; never waits."""

    # -- optional: declared in `capabilities`, refused by name where missing ------------------------

    async def tokenize(self, text: str | Sequence[Message], *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, or of a conversation under the chat template."""
        raise Unsupported(f"engine '{self.name}' does not offer tokenize")

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        raise Unsupported(f"engine '{self.name}' does not offer detokenize")

    async def count_tokens(self, request: Request) -> int:
        """Length of the request's prompt in tokens."""
        raise Unsupported(f"engine '{self.name}' does not offer count_tokens")

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings, float32 [len(texts), dim]."""
        raise Unsupported(f"engine '{self.name}' does not offer embed")

    async def score(self, tokens: Sequence[int], top_k: int | None = None) -> Scores:
        """Log-probabilities of `tokens`; the whole vocabulary where `top_k` is None."""
        raise Unsupported(f"engine '{self.name}' does not offer score")

    async def load_adapter(self, name: str, source: str, *, replace: bool = False) -> None:
        """Offer the LoRA adapter in the folder `source` under `name` from now on; what runs goes on.

        With `replace`, a name that is taken goes over to the new one.

        Raises:
            Invalid: the name will not do or is taken, there are too many, or the engine takes none.
            NotFound, CheckpointError: there is none in `source` that fits the model.
        """
        raise Unsupported(f"engine '{self.name}' lacks the capability 'adapters'", param="lora_name")

    async def unload_adapter(self, name: str, *, wait: bool = True) -> None:
        """Offer it no longer. Requests that have it end with it; with `wait`, returns when the last one has.

        Raises:
            Invalid: there is none of this name, or the engine takes none.
        """
        raise Unsupported(f"engine '{self.name}' lacks the capability 'adapters'", param="lora_name")

    async def start_trace(self) -> None:
        """Begin to measure where time goes, forgetting what was measured before."""
        raise Unsupported(f"engine '{self.name}' does not offer trace")

    async def stop_trace(self) -> EngineTrace:
        """Measure no more; what was found since `start_trace`."""
        raise Unsupported(f"engine '{self.name}' does not offer trace")

    async def apply(self, profile: Profile) -> bool:
        """Take over `profile`: True when changed hot, False when it needs a restart."""
        return False
