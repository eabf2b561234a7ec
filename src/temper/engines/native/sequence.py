"""What the step thread keeps for a request: a Job, and one Sequence for each of its samples.

Plain state. The scheduler moves sequences, the engine fills in their tokens, `output.py` makes
events of them; nothing is decided here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from temper.engines.native.adapters import Loaded
from temper.engines.native.admission import Ticket
from temper.engines.native.output import OutputRules, SampleOutput
from temper.kernels.executor import SamplerParams
from temper.types import Event, TokenLogprob

Rank = tuple[int, int, int, int]
"""Order of service, smallest first: (0 if aged else 1, priority, arrival, sample index)."""

Deliver = Callable[[list[Event]], None]
"""Takes a request's next events. Called on the event loop, never on the step thread."""


class RowSink(Protocol):
    """Where the logits of prompt rows go: echo with log-probabilities, and `score`."""

    def take(self, positions: range, rows: NDArray[np.int32]) -> None:
        """The executor holds, in logits rows `rows`, what follows the tokens at `positions`."""

    def token_logprobs(self) -> tuple[TokenLogprob, ...]:
        """The prompt's tokens with what was collected for them."""


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A request on its way through the engine."""

    arrival: int
    """Number in the order of arrival."""
    deliver: Deliver
    prompt: NDArray[np.int32]
    """[T] token ids."""
    prompt_text: str | None = None
    """The prompt as the client wrote it, when it is to be echoed."""
    rules: OutputRules | None = None
    """None for a job that only scores its prompt."""
    params: tuple[SamplerParams, ...] = ()
    """One for each sample."""
    priority: int = 0
    deadline: float | None = None
    """On the monotonic clock."""
    logprobs: int | None = None
    row_sink: RowSink | None = None
    salt: bytes = b""
    """Keeps apart what must not share cached blocks."""
    adapter: Loaded | None = None
    """Held until the job is over; touched by the event loop alone."""
    adapter_slot: int = -1
    """Where the executor has it; -1: none."""
    adapter_label: str | None = None
    """Name and version, for `made_by`."""
    preset: str | None = None
    ticket: Ticket
    """Its place at the door; touched by the event loop alone."""
    is_over: bool = False
    """The last event was handed out; touched by the event loop alone."""

    sequences: list[Sequence] = field(default_factory=list)
    num_unfinished: int = 0
    prompt_done: bool = False
    """The prompt was computed once: its samples may start from its cached blocks."""
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    started: bool = False
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    num_preemptions: int = 0
    time_arrived: float = 0.0
    time_started: float = 0.0
    time_first_token: float = 0.0

    def __post_init__(self) -> None:
        self.time_arrived = self.time_arrived or time.monotonic()


class Sequence:
    """One sample in the making: its tokens, how much of them the cache holds, and where."""

    __slots__ = (
        "blocks", "index", "is_over", "is_running", "job", "keys", "lane", "last_step", "max_tokens", "num_computed",
        "num_new", "num_prompt", "num_tabled", "num_tokens", "output", "rank", "slot", "tokens",
    )  # fmt: skip

    def __init__(self, job: Job, index: int, max_tokens: int) -> None:
        self.job = job
        self.index = index
        self.num_prompt = len(job.prompt)
        self.max_tokens = max_tokens
        self.tokens = np.empty(self.num_prompt + max_tokens, dtype=np.int32)
        self.tokens[: self.num_prompt] = job.prompt
        self.num_tokens = self.num_prompt
        self.num_computed = 0
        """Tokens whose keys and values the cache holds."""
        self.num_new = 0
        """Tokens of this sequence in the step being made."""
        self.last_step = 0
        self.blocks: list[int] = []
        self.num_tabled = 0
        """Blocks already written to its row of the block tables."""
        self.keys: list[bytes] = []
        self.lane = -1
        """Row of the block tables while running."""
        self.slot = -1
        """The executor's sampler slot, from the first sampled token to the end."""
        self.is_running = False
        self.is_over = False
        self.rank: Rank = (1, job.priority, job.arrival, index)
        self.output: SampleOutput | None = SampleOutput(index, job.rules) if job.rules is not None else None

    @property
    def wants_rows(self) -> bool:
        """The logits of its prompt are asked for, and not all seen yet."""
        job = self.job
        return job.row_sink is not None and not job.prompt_done and self.index == 0
