"""Our own engine. `NativeEngine.step` is the loop: schedule → run → sample → publish.

It runs whatever executor its model brings: native code, or a transformers model (`engines.torch`).

The event loop's side (`generate`, `score`, …) admits and tokenizes, then talks to one step thread
through its inbox; `step` and what it calls belong to that thread alone. Events go back once per step
for all requests together. How a model is loaded is `load.py`'s matter, the process around it
`worker.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Many
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from temper.engines.base import Capabilities, Engine, Health, Scores, Stats
from temper.engines.native.adapters import Adapters
from temper.engines.native.admission import Admission, Ticket
from temper.engines.native.batch import BatchBuilder, by_adapter
from temper.engines.native.hot import change_adapters, declared_adapters, differs_only_hot
from temper.engines.native.kv.pool import BlockPool
from temper.engines.native.kv.prefix import PrefixCache
from temper.engines.native.prompts import Model, capabilities, check_ids, check_room, prepare, prompt_ids
from temper.engines.native.publish import Outbox, Publisher
from temper.engines.native.rows import RowScores, unpack
from temper.engines.native.scheduler import Scheduler
from temper.engines.native.sequence import Deliver, Job, Sequence
from temper.engines.native.stepper import Stepper
from temper.engines.native.steps import StepSizes
from temper.engines.native.tracer import Tracer
from temper.engines.tracing import EngineTrace
from temper.errors import Draining, EngineFailure, Invalid, OutOfMemory, TemperError
from temper.types import Accepted, Done, Event, Failed, MadeBy, Message, Request, Started, TokenLogprob

if TYPE_CHECKING:
    from temper.profile.schema import PagedEngine, Profile, SteppedEngine

_log = logging.getLogger(__name__)
T = TypeVar("T")
_TOKENIZER_THREADS = 2
_HALT_TIMEOUT_S = 30.0


class NativeEngine(Engine):
    """Continuous batching over one executor. One event loop at a time: the one that called `start`."""

    def __init__(
        self,
        section: SteppedEngine,
        open_model: Callable[[SteppedEngine], Model],
        *,
        stall_after_s: float = 30.0,
    ) -> None:
        """`open_model` loads the checkpoint, off the event loop, when the engine starts."""
        self.name: str = section.kind
        self._section: SteppedEngine = section
        self._open_model = open_model
        self._stall_after_s = stall_after_s
        self._admission = Admission(section.admission.max_waiting, section.batching.max_sequences)
        self._num_arrived = 0
        self._draining = False
        self._stopped = True
        self._stepper: Stepper | None = None
        self._tracer = Tracer()
        self._loop_cpu_s = 0.0

    # -- the loop, on the step thread ----------------------------------------------------------------

    def step(self) -> bool:
        """One iteration; True when there is more to do."""
        lap = self._tracer.begin()
        self._publisher.expire()
        sequences = by_adapter(self._scheduler.schedule())
        lap("schedule", sequences)
        if sequences:
            began = time.monotonic()
            batch = self._batches.build(sequences)
            lap("build")
            self._model.executor.forward(batch)
            lap("forward")
            tokens, logprobs = self._sample(sequences)
            lap("sample")
            self._publisher.publish(began, sequences, tokens, logprobs)
            self._steps.count(self._batches.num_tokens)
            lap("publish")
        elif self._scheduler.num_waiting and not self._scheduler.num_running:
            self._fail_all(OutOfMemory("the KV pool is too small for what waits in line"))
        self._hand_over()
        lap("hand_over")
        return bool(self._publisher.jobs)

    def _sample(self, sequences: list[Sequence]) -> tuple[list[int], dict[int, TokenLogprob]]:
        """The next token of each sequence that is computed to its end, -1 for the others."""
        executor, last_rows = self._model.executor, self._batches.last_rows
        tokens = [-1] * len(sequences)
        chosen: list[int] = []
        rows, slots, temperatures, forced = self._rows, self._slots, self._temperatures, self._forced
        for i, sequence in enumerate(sequences):
            end = sequence.num_computed + sequence.num_new
            if sequence.wants_rows and sequence.job.row_sink is not None:
                counted = np.arange(last_rows[i] + 1 - sequence.num_new, last_rows[i] + 1, dtype=np.int32)
                sequence.job.row_sink.take(range(sequence.num_computed, end), counted)
            output = sequence.output
            if end < sequence.num_tokens or output is None or sequence.max_tokens == 0:
                continue
            if sequence.slot < 0:
                sequence.slot = executor.open_slot(sequence.job.params[sequence.index], sequence.job.prompt)
            at = len(chosen)
            rows[at], slots[at] = last_rows[i], sequence.slot
            temperatures[at] = output.temperature
            forced[at] = output.forced[0] if output.forced else -1
            chosen.append(i)
        if not chosen:
            return tokens, {}
        num = len(chosen)
        found = executor.sample(rows[:num], slots[:num], temperatures[:num], forced[:num])
        for i, token in zip(chosen, found.tolist(), strict=True):
            tokens[i] = token
        return tokens, self._logprobs(sequences, chosen, tokens)

    def _logprobs(self, sequences: list[Sequence], chosen: list[int], tokens: list[int]) -> dict[int, TokenLogprob]:
        wanted = [i for i in chosen if sequences[i].job.logprobs is not None]
        if not wanted:
            return {}
        top_k = {i: sequences[i].job.logprobs or 0 for i in wanted}
        rows = np.array([self._batches.last_rows[i] for i in wanted], dtype=np.int32)
        ids = np.array([tokens[i] for i in wanted], dtype=np.int32)
        found = self._model.executor.logprobs(rows, ids, max(top_k.values()))
        spell = self._model.tokenizer.token_bytes
        return {i: unpack(found, at, tokens[i], top_k[i], spell) for at, i in enumerate(wanted)}

    def _hand_over(self) -> None:
        if (outbox := self._publisher.take_outbox()) and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_out, outbox)

    def _fail_all(self, error: TemperError) -> None:
        for job in list(self._publisher.jobs):
            self._publisher.fail(job, error)

    def _on_failure(self, error: Exception) -> None:
        _log.exception("a step failed; its requests end with an error", exc_info=error)
        kind = OutOfMemory if isinstance(error, MemoryError) else EngineFailure
        self._fail_all(kind(f"the step that computed this request failed: {error}"))
        self._hand_over()

    # -- life ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the model and the adapters of the profile, and begin to step."""
        self._loop = asyncio.get_running_loop()
        self._model = model = await self._loop.run_in_executor(None, self._open_model, self._section)
        self._make_ready(model)
        self._tokenizing = ThreadPoolExecutor(_TOKENIZER_THREADS, thread_name_prefix="temper-tokenize")
        self._adapters = Adapters(
            model.name, model.executor, model.read_adapter, getattr(self._section, "lora", None),
            self._on_step_thread, self._tokenizing,
        )  # fmt: skip
        self._draining = self._stopped = False
        self._stepper = Stepper(self.step, self._on_failure)
        self._stepper.start()
        try:
            for name, source in declared_adapters(self._section).items():
                await self._adapters.load(name, source)
        except BaseException:
            await self.stop()
            raise

    def _make_ready(self, model: Model) -> None:
        """What `step` works on; made anew at each start."""
        executor, limits, kv = model.executor, model.limits, cast("PagedEngine", self._section).kv
        self._built_step_tokens = limits.max_step_tokens
        cache = PrefixCache(BlockPool(executor.num_blocks), enabled=kv.prefix_cache, evict_above=kv.evict_above)
        self._scheduler = Scheduler(cache, executor.block_tokens, limits)
        self._batches = BatchBuilder(limits, self._scheduler.blocks_for(model.context_length))
        self._publisher = Publisher(model, self._scheduler, self._made_by)
        self._steps = StepSizes()
        self._rows = np.empty(limits.max_sequences, dtype=np.int32)
        self._slots = np.empty(limits.max_sequences, dtype=np.int32)
        self._forced = np.empty(limits.max_sequences, dtype=np.int32)
        self._temperatures = np.empty(limits.max_sequences, dtype=np.float32)

    async def stop(self, drain_s: float = 0.0) -> None:
        """Take nothing new, let running work finish for `drain_s` seconds, then end the rest with an error."""
        self._draining = True
        stepper = self._stepper
        if stepper is None:
            return
        end = time.monotonic() + drain_s
        while self._admission.num_waiting + self._admission.num_running and time.monotonic() < end:
            await asyncio.sleep(0.01)
        self._stopped = True
        stepper.post(lambda: self._fail_all(EngineFailure("the engine was stopped", hint="send the request again")))
        stepper.post(self._hand_over)
        stepper.finish()
        if not await asyncio.to_thread(stepper.join, _HALT_TIMEOUT_S):
            _log.error("the step thread did not end within %s s", _HALT_TIMEOUT_S)
        self._adapters.close()
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
        self._stepper = None
        await asyncio.sleep(0)  # the last events are handed out by the loop

    def health(self) -> Health:
        """Ready while steps complete, or could."""
        if self._stepper is None:
            return Health(alive=True, ready=False, reason="not started")
        if self._draining:
            return Health(alive=True, ready=False, reason="draining")
        stuck = self._stepper.stuck_for_s()
        if stuck > self._stall_after_s:
            return Health(alive=True, ready=False, reason=f"the present step has taken {stuck:.0f} s")
        return Health(alive=True, ready=True)

    def capabilities(self) -> Capabilities:
        """What this engine can do with its model."""
        adapters = self._adapters
        can = capabilities(self._model, self._section)
        return replace(can, adapters=adapters.names, adapter_versions=adapters.versions)

    def stats(self) -> Stats:
        """A snapshot; reads the step thread's counters without waiting for it."""
        if self._stepper is None:
            return Stats()
        scheduler, publisher, last = self._scheduler, self._publisher, self._stepper.last_step
        pool, block_bytes = scheduler.cache.pool, self._model.executor.kv_block_bytes
        return Stats(
            num_running=scheduler.num_running,
            num_waiting=max(scheduler.num_waiting, self._admission.num_waiting),
            kv_used_bytes=pool.num_held * block_bytes,
            kv_budget_bytes=pool.num_blocks * block_bytes,
            kv_usage=pool.num_held / pool.num_blocks,
            kv_peak_bytes=pool.peak_used * block_bytes,
            prefix_queries_total=scheduler.prefix_queries_total,
            prefix_hits_total=scheduler.prefix_hits_total,
            preemptions_total=scheduler.preemptions_total,
            prompt_tokens_total=publisher.prompt_tokens_total,
            generation_tokens_total=publisher.generation_tokens_total,
            steps_total=self._steps.num_steps,
            last_step_age_s=None if last is None else time.monotonic() - last,
            details={
                **self._model.details,
                "adapters": self._adapters.figures(),
                "iteration_tokens": self._steps.histogram(),
            },
        )

    # -- requests, on the event loop -----------------------------------------------------------------

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        """Stream the events of `request`; see `Engine.generate`."""
        queue: asyncio.Queue[list[Event]] = asyncio.Queue()
        job = await self.open(request, queue.put_nowait)
        try:
            while True:
                events = await queue.get()
                for event in events:
                    yield event
                if isinstance(events[-1], Done | Failed):
                    return
        finally:
            self.cancel(job)

    async def open(self, request: Request, deliver: Deliver) -> Job:
        """Admit, prepare and enqueue; `deliver` then gets the events, a list per step. Raises like `generate`."""
        ticket = self._enter(request.n)
        adapter = None
        try:
            if request.adapter is not None:
                adapter = self._adapters.take(request.adapter)
                request = replace(request, adapter=None)
            model = self._model if adapter is None else replace(self._model, template=adapter.template)
            arrived, model, section = time.monotonic(), self._tracer.watch(model), self._section
            preparing = self._tracer.timed("tokenize", prepare)
            prepared = await self._loop.run_in_executor(self._tokenizing, preparing, request, model, section)
            sink = None
            if request.echo and request.logprobs is not None:
                sink = RowScores(model.executor, prepared.prompt, request.logprobs, model.tokenizer.token_bytes)
            lives = [s for s in (request.deadline_s, section.admission.timeout_s) if s is not None]
            job = Job(
                arrival=self._next_arrival(),
                deliver=deliver,
                prompt=prepared.prompt,
                prompt_text=prepared.prompt_text,
                rules=prepared.rules,
                params=prepared.params,
                priority=request.priority,
                deadline=arrived + min(lives) if lives else None,
                logprobs=request.logprobs,
                row_sink=sink,
                preset=prepared.preset,
                ticket=ticket,
                time_arrived=arrived,
                salt=b"" if adapter is None else adapter.salt,
                adapter=adapter,
                adapter_slot=-1 if adapter is None else adapter.slot,
                adapter_label=None if adapter is None else adapter.label,
            )
            job.sequences = [Sequence(job, i, prepared.rules.max_tokens) for i in range(request.n)]
            deliver([Accepted(self._admission.num_waiting - 1)])
            self._submit(job)
        except BaseException:
            self._admission.left(ticket)
            if adapter is not None:
                self._adapters.give_back(adapter)
            raise
        return job

    def cancel(self, job: Job) -> None:
        """Nobody wants the job any more: what it holds is free after the present step. Harmless once it is over."""
        if self._stepper is not None and not job.is_over:
            self._stepper.post(partial(self._publisher.cancel, job))
        self._left(job)

    async def score(self, tokens: Many[int], top_k: int | None = None) -> Scores:
        """Log-probabilities of `tokens`; see `Engine.score`.

        Raises:
            Invalid: fewer than 2 tokens, an id outside the vocabulary, or a `top_k` out of range.
            ContextTooLong: more tokens than the context holds.
        """
        if len(tokens) < 2:
            raise Invalid(f"score needs at least 2 tokens, got {len(tokens)}", param="tokens")
        model = self._ready_model()
        if top_k is not None and not 0 <= top_k <= model.executor.vocab_size:
            raise Invalid(f"top_k must be between 0 and {model.executor.vocab_size}, got {top_k}", param="top_k")
        check_ids(tokens, model.executor.vocab_size)
        check_room(len(tokens), 0, model, 0)
        prompt = np.asarray(tokens, dtype=np.int32)
        sink = RowScores(model.executor, prompt, top_k, model.tokenizer.token_bytes)
        ended: asyncio.Future[Event] = self._loop.create_future()

        def deliver(events: list[Event]) -> None:
            if isinstance(events[-1], Done | Failed) and not ended.done():
                ended.set_result(events[-1])

        ticket = self._enter(1)
        job = Job(arrival=self._next_arrival(), deliver=deliver, prompt=prompt, row_sink=sink, ticket=ticket)
        job.sequences = [Sequence(job, 0, 0)]
        try:
            self._submit(job)
            last = await ended
        finally:
            self.cancel(job)
        if isinstance(last, Failed):
            raise last.error
        return sink.scores()

    async def tokenize(self, text: str | Many[Message], *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, or of a conversation under the chat template."""
        model = self._ready_model()
        if isinstance(text, str):
            encode = partial(model.tokenizer.encode, text, add_special_tokens=add_special_tokens)
            return await self._loop.run_in_executor(self._tokenizing, encode)
        return await self.count(Request(id="tokenize", messages=tuple(text)))

    async def detokenize(self, token_ids: Many[int]) -> str:
        """The text of token ids, special tokens included."""
        model = self._ready_model()
        check_ids(token_ids, model.executor.vocab_size)
        return await self._loop.run_in_executor(self._tokenizing, model.tokenizer.decode, token_ids)

    async def count_tokens(self, request: Request) -> int:
        """Length of the request's prompt in tokens."""
        return len(await self.count(request))

    async def count(self, request: Request) -> list[int]:
        """The request's prompt in tokens."""
        model = self._ready_model()
        return await self._loop.run_in_executor(self._tokenizing, prompt_ids, request, model, self._section)

    async def start_trace(self) -> None:
        """Begin to measure where time goes, with the next step."""
        await self._on_step_thread(partial(self._tracer.start, self._ready_model()))
        self._loop_cpu_s = time.thread_time()

    async def stop_trace(self) -> EngineTrace:
        """What was found since `start_trace`."""
        loop_cpu_s = time.thread_time() - self._loop_cpu_s
        return await self._on_step_thread(partial(self._tracer.stop, self._ready_model(), loop_cpu_s))

    async def apply(self, profile: Profile) -> bool:
        """Take over what may change while running; False when anything else differs too."""
        if profile.engine.kind != self._section.kind:
            return False
        old, new = cast("PagedEngine", self._section), cast("PagedEngine", profile.engine)
        if not differs_only_hot(old, new, self._built_step_tokens):
            return False
        self._adapters.limits = getattr(new, "lora", None)
        await change_adapters(self, declared_adapters(old), declared_adapters(new))
        self._section = new
        self._admission.max_waiting = new.admission.max_waiting
        assert self._stepper is not None, "apply comes after start"
        self._stepper.post(partial(self._take_over, new))
        return True

    async def load_adapter(self, name: str, source: str, *, replace: bool = False) -> None:
        """Offer the adapter in the folder `source` as `name`; see `Adapters.load`."""
        self._ready_model()
        await self._adapters.load(name, source, replace=replace)

    async def unload_adapter(self, name: str, *, wait: bool = True) -> None:
        """Offer it no longer; with `wait`, returns when the last request that uses it has ended."""
        self._ready_model()
        await self._adapters.unload(name, wait=wait)

    # -- inside --------------------------------------------------------------------------------------

    async def _on_step_thread(self, call: Callable[[], T]) -> T:
        """What `call` returns, run between two steps."""
        if self._stepper is None or self._stopped:
            raise Draining("the engine was stopped", retry_after_s=1.0)
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return  # nobody waits any more
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)

        self._stepper.post(run)
        return await asyncio.wrap_future(future)

    def _take_over(self, section: PagedEngine) -> None:
        self._scheduler.limits.max_step_tokens = section.batching.max_step_tokens
        self._scheduler.cache.configure(enabled=section.kv.prefix_cache, evict_above=section.kv.evict_above)

    def _ready_model(self) -> Model:
        if self._stepper is None:
            raise Draining("the engine is not started", retry_after_s=1.0)
        return self._model

    def _enter(self, weight: int) -> Ticket:
        self._ready_model()
        if self._draining:
            raise Draining("the engine is stopping and takes nothing new", retry_after_s=self._admission.retry_after_s)
        return self._admission.enter(max(1, weight))

    def _next_arrival(self) -> int:
        self._num_arrived += 1
        return self._num_arrived

    def _submit(self, job: Job) -> None:
        if self._stepper is None or self._stopped:
            raise Draining("the engine was stopped", retry_after_s=1.0)
        self._stepper.post(partial(self._publisher.add, job))

    def _hand_out(self, outbox: Outbox) -> None:
        for job, events in outbox:
            if isinstance(events[0], Started):
                self._admission.started(job.ticket)
            if isinstance(events[-1], Done | Failed):
                job.is_over = True
                self._left(job)
            job.deliver(events)

    def _left(self, job: Job) -> None:
        """The job is over, or nobody wants it any more."""
        self._admission.left(job.ticket)
        if job.adapter is not None:
            adapter, job.adapter = job.adapter, None
            self._adapters.give_back(adapter)

    def _made_by(self, job: Job) -> MadeBy:
        return MadeBy(
            engines=(self.name,), precision=self._model.precision, preset=job.preset, adapter=job.adapter_label
        )
