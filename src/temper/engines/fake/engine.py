"""The fake engine: plays a script with the manners of a real engine.

Admission, waiting line, pacing, cancellation, deadlines, draining, usage and statistics are real;
only the tokens are made up. From tokens to events it is the native engine's own code, so the rules of
thinking, stop strings and budgets can be proven here without weights. It knows no model.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from temper.engines.base import Capabilities, Engine, Health, Stats
from temper.engines.fake.faults import find
from temper.engines.fake.scripts import Script
from temper.engines.fake.words import (
    END_OF_TEXT,
    Decoder,
    conversation,
    echo,
    logprob_of,
    skip_to,
    split,
    text_of,
    token_bytes,
    token_id,
)
from temper.engines.kinds import Context
from temper.engines.native.output import OutputRules, SampleOutput
from temper.errors import (
    ContextTooLong,
    DeadlineExceeded,
    Draining,
    EngineDied,
    EngineFailure,
    Invalid,
    QueueFull,
    TemperError,
    Unsupported,
)
from temper.profile import schema
from temper.types import (
    Accepted,
    Done,
    Event,
    Failed,
    Finished,
    MadeBy,
    Message,
    Request,
    Started,
    Timings,
    Usage,
)

CONTEXT_LENGTH = 8192
EMBEDDING_SIZE = 16
KV_BYTES_PER_TOKEN = 64
PREFIX_BLOCK = 16
"""Prompts are remembered in blocks of so many tokens, as a real prefix cache does."""
PREFIX_BLOCKS_KEPT = 4096
RECOVERY_S = 0.5
"""How long the engine is dead after a crash."""
PATIENCE_S = 0.05
"""Longest sleep before looking whether the engine stopped or the deadline passed."""
MOST_LEAKED = 1 << 30
"""Bytes that scripts may leak in all."""
OPEN_TAG, CLOSE_TAG = "<think>", "</think>"


class _Vanished(Exception):
    """The stream shall just end."""


@dataclass(slots=True)
class _Life:
    """One request between acceptance and its end."""

    request: Request
    prompt: list[int]
    born: float
    order: tuple[int, int]
    running: bool = False
    tokens: int = 0
    """KV entries held."""


@dataclass(slots=True)
class _Sample:
    """One sample being said."""

    script: Script
    pieces: Iterator[bytes]
    output: SampleOutput
    skipping: bool = False
    """The thinking was cut short: what the script still had to think is left out."""


class FakeEngine(Engine):
    """Plays `config.script` to every request. See `docs/fake.md` for what there is."""

    name = "fake"

    def __init__(self, config: schema.FakeEngine, context: Context | None = None) -> None:
        """`context` is not used: there is nothing to fetch or to keep.

        Raises:
            ProfileError: no script has this name.
        """
        self._config = config
        self._plan = find(config.script)
        self._arrivals = itertools.count()
        self._leaked: list[bytes] = []
        self._lives: dict[tuple[int, int], _Life] = {}
        self._order = itertools.count()
        self._line: list[tuple[tuple[int, int], asyncio.Future[None]]] = []
        self._num_running = 0
        self._state: TemperError | None = Draining("the engine is not started", retry_after_s=1.0)
        self._broken: TemperError | None = None
        """Why every open stream must end, when it must."""
        self._stalled = 0
        self._prefixes: dict[int, None] = {}
        self._totals = {"prompt": 0, "generation": 0, "queries": 0, "hits": 0, "steps": 0}
        self._last_step = time.monotonic()
        self._num_cancelled = 0

    # -- life ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Ready at once."""
        self._state = self._broken = None

    async def stop(self, drain_s: float = 0.0) -> None:
        """Refuse from now on, wait for open streams, then break those that are left."""
        self._state = Draining("the engine is stopping", retry_after_s=5.0)
        end = time.monotonic() + drain_s
        while self._lives and time.monotonic() < end:
            await asyncio.sleep(0.005)
        self._broken = EngineFailure("the engine stopped before the answer was complete")
        while self._lives and time.monotonic() < end + 10 * PATIENCE_S:
            await asyncio.sleep(0.005)

    def health(self) -> Health:
        """Not ready while stopped, crashed, or with a stalled stream."""
        if self._state is not None:
            return Health(alive=not isinstance(self._state, EngineDied), ready=False, reason=str(self._state))
        if self._stalled:
            return Health(alive=True, ready=False, reason="no step completes: a stream has stalled")
        return Health(alive=True, ready=True)

    def capabilities(self) -> Capabilities:
        """All that a script can pretend."""
        admission = self._config.admission
        return Capabilities(
            model="fake",
            context_length=CONTEXT_LENGTH,
            logprobs=True,
            max_logprobs=admission.max_logprobs,
            echo=True,
            max_n=admission.max_samples,
            seed=True,
            thinking=True,
            tokenize=True,
            embed=True,
            exactness="batch-invariant",
        )

    def stats(self) -> Stats:
        """Counts of this moment."""
        used = sum(life.tokens for life in self._lives.values()) * KV_BYTES_PER_TOKEN
        budget = CONTEXT_LENGTH * self._config.max_sequences * KV_BYTES_PER_TOKEN
        return Stats(
            num_running=self._num_running,
            num_waiting=len(self._lives) - self._num_running,
            kv_used_bytes=used,
            kv_budget_bytes=budget,
            kv_usage=used / budget,
            prefix_queries_total=self._totals["queries"],
            prefix_hits_total=self._totals["hits"],
            prompt_tokens_total=self._totals["prompt"],
            generation_tokens_total=self._totals["generation"],
            steps_total=self._totals["steps"],
            last_step_age_s=time.monotonic() - self._last_step,
            details={"cancelled_total": self._num_cancelled, "leaked_bytes": sum(map(len, self._leaked))},
        )

    # -- a request -------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        """Play the script; see the seam for the order of events."""
        arrival, seeded = next(self._arrivals), self._seeded(request)
        life = self._admit(request, lambda: self._plan.script(seeded, 0, self._config.seed, arrival).refuse)
        scripts = [self._plan.script(seeded, i, self._config.seed, arrival) for i in range(request.n)]
        complete = False
        try:
            yield Accepted(queue_position=len(self._line) if self._num_running >= self._config.max_sequences else 0)
            try:
                await self._wait_for_turn(life)
                async for event in self._play(life, scripts):
                    complete = isinstance(event, Done)
                    yield event
            except _Vanished:
                complete = True
            except TemperError as error:
                complete = True
                yield Failed(error)
        finally:
            self._num_cancelled += not complete
            self._release(life)

    def _seeded(self, request: Request) -> Request:
        if request.sampling.seed is not None:
            return request
        return replace(request, sampling=replace(request.sampling, seed=self._config.seed))

    def _admit(self, request: Request, refusal: Callable[[], TemperError | None]) -> _Life:
        """Check the request and take it in, unless the script has a `refusal`.

        Raises:
            Invalid: it breaks a rule.
            Rejected: not now.
        """
        if self._state is not None:
            raise (
                self._state if not isinstance(self._state, EngineDied) else Draining(str(self._state), retry_after_s=1)
            )
        if len(self._line) >= self._config.admission.max_waiting and self._num_running >= self._config.max_sequences:
            raise QueueFull(
                f"{len(self._line)} requests wait already, the limit is {self._config.admission.max_waiting}",
                retry_after_s=1.0,
            )
        prompt = self._check(request)
        refused = refusal()
        if refused is not None:
            raise refused
        life = _Life(request, prompt, time.monotonic(), (request.priority, next(self._order)))
        self._lives[life.order] = life
        return life

    def _check(self, request: Request) -> list[int]:
        """The prompt's token ids, once every rule of the request holds."""
        limits = self._config.admission
        missing = {
            "tools": bool(request.tools),
            "response_format": (request.response_format or {}).get("type", "text") != "text",
            "num_beams": (request.sampling.num_beams or 1) > 1,
            "model": request.adapter is not None,
            "messages": any(m.media for m in request.messages or ()),
            "extensions": bool(request.extensions),
        }
        for param, is_asked in missing.items():
            if is_asked:
                raise Unsupported(f"the fake engine does not offer what '{param}' asks for", param=param)
        if (request.messages is None) == (request.prompt is None):
            raise Invalid("exactly one of messages and prompt is needed", param="messages")
        for param, value, least, most in (
            ("n", request.n, 1, limits.max_samples),
            ("logprobs", request.logprobs or 0, 0, limits.max_logprobs),
            ("stop", len(request.stop.strings), 0, limits.max_stop_strings),
        ):
            if not least <= value <= most:
                raise Invalid(f"'{param}' is {value}, allowed is {least} to {most}", param=param)
        prompt = self._prompt(request)
        if not prompt:
            raise Invalid("the prompt is empty", param="prompt")
        wanted = request.limits.max_tokens or 0
        if len(prompt) + wanted > CONTEXT_LENGTH or len(prompt) >= CONTEXT_LENGTH:
            raise ContextTooLong(
                f"{len(prompt)} prompt tokens and {wanted} new ones exceed the context of {CONTEXT_LENGTH}",
                param="prompt" if request.messages is None else "messages",
            )
        return prompt

    def _prompt(self, request: Request) -> list[int]:
        if request.prompt is not None and not isinstance(request.prompt, str):
            text_of(request.prompt)  # raises for ids that nobody has
            return list(request.prompt)
        text = request.prompt if request.prompt is not None else conversation(request.messages or ())
        most = self._config.admission.max_prompt_bytes
        if len(text.encode()) > most:
            raise ContextTooLong(
                f"the prompt has {len(text.encode())} bytes, the limit is {most}",
                param="prompt" if request.messages is None else "messages",
            )
        return [token_id(token) for token in split(text)]

    async def _wait_for_turn(self, life: _Life) -> None:
        if self._num_running >= self._config.max_sequences or self._line:
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._line, (life.order, turn))
            try:
                while not turn.done():
                    self._look(life)
                    await asyncio.wait((turn,), timeout=PATIENCE_S)
            finally:
                if not turn.done():
                    turn.cancel()
                    self._line = [entry for entry in self._line if entry[1] is not turn]
                    heapq.heapify(self._line)
                else:
                    life.running = True
            return
        life.running = True
        self._num_running += 1

    def _release(self, life: _Life) -> None:
        """Free what the request held; hand its place to the next in line."""
        del self._lives[life.order]
        if not life.running:
            return
        if self._line:
            heapq.heappop(self._line)[1].set_result(None)
        else:
            self._num_running -= 1

    async def _play(self, life: _Life, scripts: list[Script]) -> AsyncIterator[Event]:
        request, begin = life.request, time.monotonic()
        life.tokens = len(life.prompt)
        cached = self._look_up(life.prompt)
        self._totals["prompt"] += len(life.prompt)
        yield Started(len(life.prompt), cached)
        self._leak(scripts[0].leak_bytes)
        first_ms = scripts[0].first_ms
        await self._pause(life, self._config.ttft_ms if first_ms is None else first_ms)
        first = time.monotonic()
        limit = request.limits.max_tokens
        if limit is None:
            limit = min(self._config.admission.default_max_tokens, CONTEXT_LENGTH - len(life.prompt))
        samples = [self._sample(request, i, script, limit) for i, script in enumerate(scripts)]
        for index in range(len(samples)):
            if request.echo:
                yield echo(life.prompt, index, request.logprobs)
            if limit == 0:
                yield Finished(index, "length")
        for position in itertools.count():
            open_samples = [sample for sample in samples if not sample.output.finished]
            if not open_samples or limit == 0:
                break
            if position:
                gap = open_samples[0].script.gap_ms
                await self._pause(life, self._config.itl_ms if gap is None else gap() if callable(gap) else gap)
            for sample in open_samples:
                await self._go_wrong(life, sample.script, position)
                for event in self._say(request, sample):
                    yield event
            life.tokens += len(open_samples)
            self._totals["steps"] += 1
            self._last_step = time.monotonic()
        now = time.monotonic()
        usage = Usage(
            prompt_tokens=len(life.prompt),
            cached_tokens=cached,
            completion_tokens=sum(s.output.num_generated for s in samples),
            reasoning_tokens=sum(s.output.num_reasoning for s in samples),
        )
        bend = scripts[0].bend_usage
        yield Done(
            usage if bend is None else bend(usage),
            Timings(queue_s=begin - life.born, prefill_s=first - begin, decode_s=now - first),
            MadeBy(engines=(self.name,), precision="none", preset=request.sampling.preset),
        )

    # -- one sample ------------------------------------------------------------------------------------

    def _sample(self, request: Request, index: int, script: Script, limit: int) -> _Sample:
        splits = request.messages is not None
        rules = OutputRules(
            decoder=Decoder,
            max_tokens=limit,
            min_tokens=request.limits.min_tokens,
            stop_strings=request.stop.strings,
            stop_ids=frozenset((END_OF_TEXT, *request.stop.token_ids)),
            named_stop_ids=frozenset(request.stop.token_ids),
            tags=(OPEN_TAG, CLOSE_TAG) if splits else None,
            thinking_opened=splits and script.opened,
            budget=request.thinking.budget_tokens if splits else None,
            close_ids=(token_id(CLOSE_TAG.encode()),),
        )
        return _Sample(script, iter(script.pieces), SampleOutput(index, rules))

    def _say(self, request: Request, sample: _Sample) -> list[Event]:
        """The next token of a sample."""
        output = sample.output
        piece = self._next_piece(request, sample)
        number = END_OF_TEXT if piece is None else token_id(piece)
        entry = None if request.logprobs is None else logprob_of(piece or b"", output.num_generated, request.logprobs)
        self._totals["generation"] += 1
        # One token is all that the native code looks at, without a loop guard.
        return output.push(np.array([number]), 1, entry)

    def _next_piece(self, request: Request, sample: _Sample) -> bytes | None:
        """The next token, None at the end of the text."""
        output = sample.output
        if output.forced:
            sample.skipping = True
            return token_bytes(output.forced[0])
        if sample.skipping:
            sample.skipping = False
            skip_to(CLOSE_TAG, itertools.islice(sample.pieces, CONTEXT_LENGTH))
        piece = next(sample.pieces, None)
        if piece is None and (request.stop.ignore_eos or output.num_generated < request.limits.min_tokens):
            if isinstance(sample.script.pieces, Sequence):
                sample.pieces = iter(sample.script.pieces)
            piece = next(sample.pieces, b" .")
        return piece

    # -- time and trouble ------------------------------------------------------------------------------

    async def _pause(self, life: _Life, milliseconds: float) -> None:
        """Sleep, and raise what ends the stream meanwhile."""
        end = time.monotonic() + milliseconds / 1000
        await asyncio.sleep(0)
        self._look(life)
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, PATIENCE_S))
            self._look(life)

    def _look(self, life: _Life) -> None:
        """Raise what ends this stream, if anything does."""
        if self._broken is not None:
            raise self._broken
        deadline = life.request.deadline_s
        if deadline is not None and time.monotonic() - life.born > deadline:
            raise DeadlineExceeded(f"the answer was not complete within {deadline} s", param="deadline_s")

    async def _go_wrong(self, life: _Life, script: Script, position: int) -> None:
        fault = script.faults.get(position)
        if isinstance(fault, TemperError):
            raise fault
        if fault == "crash":
            self._crash()
            self._look(life)
        elif fault == "vanish":
            raise _Vanished
        elif isinstance(fault, float):
            await self._pause(life, fault)
        elif fault == "stall":
            self._stalled += 1
            try:
                while True:
                    await self._pause(life, 1000.0)
            finally:
                self._stalled -= 1

    def _leak(self, num_bytes: int) -> None:
        """Memory that is truly there: pages that were written, up to a gigabyte."""
        if num_bytes and sum(map(len, self._leaked)) + num_bytes <= MOST_LEAKED:
            self._leaked.append(b"\1" * num_bytes)

    def _crash(self) -> None:
        self._broken = self._state = EngineDied("the fake engine crashed")
        asyncio.get_running_loop().call_later(RECOVERY_S, self._recover)

    def _recover(self) -> None:
        if isinstance(self._state, EngineDied):
            self._state = self._broken = None

    def _look_up(self, prompt: list[int]) -> int:
        """Prompt tokens that an earlier prompt had at the same place, in whole blocks; remembers this one's."""
        cached, matching = 0, True
        for end in range(PREFIX_BLOCK, len(prompt), PREFIX_BLOCK):
            key = hash(tuple(prompt[:end]))
            matching = matching and key in self._prefixes
            cached = end if matching else cached
            self._prefixes[key] = None
        while len(self._prefixes) > PREFIX_BLOCKS_KEPT:
            del self._prefixes[next(iter(self._prefixes))]
        self._totals["queries"] += len(prompt)
        self._totals["hits"] += cached
        return cached

    # -- what else is offered --------------------------------------------------------------------------

    async def tokenize(self, text: str | Sequence[Message], *, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text; there are no special tokens to add."""
        return [token_id(token) for token in split(text if isinstance(text, str) else conversation(text))]

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of ids."""
        return text_of(token_ids)

    async def count_tokens(self, request: Request) -> int:
        """Length of the prompt in tokens."""
        return len(self._prompt(request))

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors decided by the text alone, float32 [len(texts), 16]."""
        seeds = [crc32(text.encode()) for text in texts]
        rows = np.stack([np.random.default_rng(seed).standard_normal(EMBEDDING_SIZE) for seed in seeds])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)
