"""What is measured while serving: Prometheus metrics under vLLM's names, and the live figures a page shows.

Both are fed from the stream of events by one observer per request, and from plain snapshots of the
engines at the moment somebody looks. This module knows events and numbers; it knows no engine, no
HTTP and no page.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter as Counts
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Counter, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from temper.types import Delta, Done, Event, Failed, Finished, Started, ToolDelta

FIRST_TOKEN_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
INTER_TOKEN_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_BUCKETS_S = (
    *(0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
TOKEN_BUCKETS = tuple(float(lead * 10**power) for power in range(5) for lead in (1, 2, 5))

SMALLEST_SAMPLE = {"p50": 2, "p90": 10, "p99": 100}
"""How many values a percentile needs before it means anything; below that it is None."""


class EngineFigures(Protocol):
    """The numbers read of an engine at a glance; `temper.engines.base.Stats` has them all."""

    @property
    def num_running(self) -> int: ...  # noqa: D102
    @property
    def num_waiting(self) -> int: ...  # noqa: D102
    @property
    def kv_used_bytes(self) -> int: ...  # noqa: D102
    @property
    def kv_budget_bytes(self) -> int: ...  # noqa: D102
    @property
    def kv_usage(self) -> float: ...  # noqa: D102
    @property
    def kv_peak_bytes(self) -> int: ...  # noqa: D102
    @property
    def prefix_queries_total(self) -> int: ...  # noqa: D102
    @property
    def prefix_hits_total(self) -> int: ...  # noqa: D102
    @property
    def preemptions_total(self) -> int: ...  # noqa: D102
    @property
    def prompt_tokens_total(self) -> int: ...  # noqa: D102
    @property
    def generation_tokens_total(self) -> int: ...  # noqa: D102
    @property
    def steps_total(self) -> int: ...  # noqa: D102
    @property
    def details(self) -> Mapping[str, Any]: ...  # noqa: D102


ReadFigures = Callable[[], Mapping[str, EngineFigures]]
"""Gives the figures of every served model by name, without waiting."""


T = TypeVar("T")


# -- live figures ----------------------------------------------------------------------------------


class _Recent(Generic[T]):
    """What was gathered lately, in slots of time, so that old ones can be forgotten whole."""

    __slots__ = ("_make", "_slot_s", "_slots", "_window_s")

    def __init__(self, make: Callable[[], T], window_s: float, slot_s: float) -> None:
        self._make, self._window_s, self._slot_s = make, window_s, slot_s
        self._slots: deque[tuple[float, T]] = deque()

    def at(self, now: float) -> T:
        """What is gathered at this moment."""
        slots = self._slots
        if not slots or now >= slots[-1][0] + self._slot_s:
            slots.append((now - now % self._slot_s, self._make()))
            while slots[0][0] < now - self._window_s:
                slots.popleft()
        return slots[-1][1]

    def within(self, now: float) -> list[T]:
        """What was gathered in the window that ends now."""
        return [gathered for start, gathered in self._slots if start >= now - self._window_s]

    def __len__(self) -> int:
        return len(self._slots)


class _Sizes(dict[int, int]):
    """How many values there were of each size, in steps of a hundredth: little to add to, and quick to ask.

    A page asks every second, on the loop that hands tokens on: sorting the values themselves held it up for 4 ms.
    """

    STEP = math.log(1.01)
    LEAST = 1e-9

    def add(self, value: float) -> None:
        size = int(math.log(max(value, self.LEAST)) // self.STEP)
        self[size] = self.get(size, 0) + 1

    @classmethod
    def middle(cls, size: int) -> float:
        """The value that stands for all of a size."""
        return math.exp((size + 0.5) * cls.STEP)


class LiveFigures:
    """What happened in the last seconds, for people who watch.

    Memory is bounded, and percentiles are right to half a hundredth.
    """

    SLOT_S = 0.5
    RATE_WINDOW_S = 2.0
    LONG_SLOT_S = 2.0

    def __init__(
        self, read: ReadFigures, *, window_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._window_s = window_s
        self._clock = clock
        self._born = clock()
        self._rates = _Recent(lambda: [0, 0, 0], self.RATE_WINDOW_S + self.SLOT_S, self.SLOT_S)
        """Generated tokens, prompt tokens, finished requests."""
        self._first_token = _Recent(_Sizes, window_s, self.LONG_SLOT_S)
        self._inter_token = _Recent(_Sizes, window_s, self.LONG_SLOT_S)
        self._end_to_end = _Recent(_Sizes, window_s, self.LONG_SLOT_S)
        self._prefix = _Recent(lambda: [0, 0], window_s, self.LONG_SLOT_S)
        """Prompt tokens, and those that were already computed."""
        self._completed = 0
        self._failed = 0
        self._cancelled = 0

    def add_output(self, now: float, num_tokens: int) -> None:
        """`num_tokens` were generated at `now`, on the clock of this object."""
        self._rates.at(now)[0] += num_tokens

    def add_prompt(self, now: float, num_tokens: int, num_cached: int) -> None:
        """Work on a prompt of `num_tokens` began, `num_cached` of them already computed."""
        self._rates.at(now)[1] += num_tokens
        prefix = self._prefix.at(now)
        prefix[0] += num_tokens
        prefix[1] += num_cached

    def add_first_token(self, now: float, seconds: float) -> None:
        """A request got its first token `seconds` after it came."""
        self._first_token.at(now).add(seconds)

    def add_gap(self, now: float, seconds: float) -> None:
        """A sample got its next token `seconds` after the one before."""
        self._inter_token.at(now).add(seconds)

    def add_end(self, now: float, seconds: float, outcome: str) -> None:
        """A request ended after `seconds`; `outcome` is `done`, `failed` or `cancelled`."""
        if outcome == "done":
            self._completed += 1
            self._rates.at(now)[2] += 1
            self._end_to_end.at(now).add(seconds)
        elif outcome == "failed":
            self._failed += 1
        else:
            self._cancelled += 1

    def snapshot(self) -> dict[str, Any]:
        """The figures of this moment, ready for JSON.

        Rates are per second over the last two seconds. Percentiles are in milliseconds over the
        window, None while the sample is too small to carry them. `prefix_hit_rate` is the share of
        prompt tokens in the window that were already computed, None when there was no prompt.
        """
        now = self._clock()
        engines = self._read()
        total: Callable[[str], int] = lambda field: sum(getattr(e, field) for e in engines.values())  # noqa: E731
        budget = total("kv_budget_bytes")
        recent = self._rates.within(now)
        seconds = min(self.RATE_WINDOW_S, max(now - self._born, self.SLOT_S))
        rate: Callable[[int], float] = lambda column: round(sum(slot[column] for slot in recent) / seconds, 2)  # noqa: E731
        num_prompt, num_cached = (sum(slot[column] for slot in self._prefix.within(now)) for column in (0, 1))
        return {
            "time_s": round(time.time(), 3),
            "uptime_s": round(now - self._born, 3),
            "window_s": self._window_s,
            "tokens_per_s": rate(0),
            "prompt_tokens_per_s": rate(1),
            "requests_per_s": rate(2),
            "running": total("num_running"),
            "waiting": total("num_waiting"),
            "kv_usage": round(total("kv_used_bytes") / budget, 4) if budget else 0.0,
            "kv_used_bytes": total("kv_used_bytes"),
            "kv_budget_bytes": budget,
            "prefix_hit_rate": round(num_cached / num_prompt, 4) if num_prompt else None,
            "preemptions_total": total("preemptions_total"),
            "completed_total": self._completed,
            "failed_total": self._failed,
            "cancelled_total": self._cancelled,
            "ttft_ms": self._percentiles(self._first_token, now),
            "inter_token_ms": self._percentiles(self._inter_token, now),
            "e2e_ms": self._percentiles(self._end_to_end, now),
            "models": {
                name: {"running": e.num_running, "waiting": e.num_waiting, "kv_usage": round(e.kv_usage, 4)}
                for name, e in engines.items()
            },
        }

    def _percentiles(self, recent: _Recent[_Sizes], now: float) -> dict[str, Any]:
        """Each the size of the smallest value that at least so many do not exceed; None where there are too few."""
        counts: Counts[int] = Counts()
        for sizes in recent.within(now):
            counts.update(sizes)
        total = counts.total()
        found: dict[str, Any] = {"count": total}
        ordered = sorted(counts)
        sums = list(accumulate(counts[size] for size in ordered))
        for name, least in SMALLEST_SAMPLE.items():
            rank = math.ceil(total * int(name[1:]) / 100)
            at = bisect_left(sums, rank)
            found[name] = round(_Sizes.middle(ordered[at]) * 1000, 3) if total >= least else None
        return found


# -- metrics ---------------------------------------------------------------------------------------


class _EngineCollector(Collector):
    """Reads the engines when somebody scrapes; holds no numbers of its own."""

    GAUGES = (
        ("vllm:num_requests_running", "Requests that are computed now.", "num_running"),
        ("vllm:num_requests_waiting", "Requests that wait for their first step.", "num_waiting"),
        ("vllm:kv_cache_usage_perc", "Share of the KV budget held by sequences, 0 to 1.", "kv_usage"),
        ("temper:kv_used_bytes", "KV bytes held by sequences.", "kv_used_bytes"),
        ("temper:kv_budget_bytes", "Hard limit of the KV pool.", "kv_budget_bytes"),
        ("temper:kv_peak_bytes", "Most bytes of the KV pool ever in use at once.", "kv_peak_bytes"),
    )
    COUNTERS = (
        ("vllm:prompt_tokens", "Prompt tokens taken in.", "prompt_tokens_total"),
        ("vllm:generation_tokens", "Tokens generated.", "generation_tokens_total"),
        ("vllm:num_preemptions", "Sequences pushed out of the KV pool and computed again.", "preemptions_total"),
        ("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", "prefix_queries_total"),
        ("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache.", "prefix_hits_total"),
        ("temper:engine_steps", "Steps the engine completed.", "steps_total"),
    )

    def __init__(self, read: ReadFigures) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Nothing: so that registering does not read the engines."""
        return ()

    def collect(self) -> Iterator[Metric]:
        engines = self._read()
        for name, text, field in self.GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["model_name"])
            for model, figures in engines.items():
                gauge.add_metric([model], getattr(figures, field))
            yield gauge
        for name, text, field in self.COUNTERS:
            counter = CounterMetricFamily(name, text, labels=["model_name"])
            for model, figures in engines.items():
                counter.add_metric([model], getattr(figures, field))
            yield counter
        steps = HistogramMetricFamily("vllm:iteration_tokens_total", "Tokens per engine step.", labels=["model_name"])
        for model, figures in engines.items():
            sizes = figures.details.get("iteration_tokens")
            if sizes is not None:
                buckets = [("+Inf" if math.isinf(edge) else str(float(edge)), n) for edge, n in sizes["buckets"]]
                steps.add_metric([model], buckets, sizes["sum"])
        yield steps


class _Histogram:
    """A histogram of one model, without the locks of prometheus_client, which cost most of the time of a token here.

    Only the event loop's thread writes and reads it.
    """

    __slots__ = ("_edges", "counts", "sum")

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = edges
        self.counts = [0] * (len(edges) + 1)
        """Of each bucket alone; the last one is above every edge."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._edges, value)] += 1
        self.sum += value


class _Histograms(Collector):
    """A `_Histogram` a model, as Prometheus' histogram of that name."""

    def __init__(self, name: str, text: str, edges: Sequence[float]) -> None:
        self._name, self._text, self._edges = name, text, edges
        self._models: dict[str, _Histogram] = {}

    def of(self, model: str) -> _Histogram:
        """Where the values of `model` go."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = _Histogram(self._edges)
        return found

    def describe(self) -> Iterable[Metric]:
        """The name, so that it is taken only once."""
        yield HistogramMetricFamily(self._name, self._text, labels=["model_name"])

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=["model_name"])
        names = [*(str(float(edge)) for edge in self._edges), "+Inf"]
        for model, seen in self._models.items():
            family.add_metric([model], list(zip(names, accumulate(seen.counts), strict=True)), seen.sum)
        yield family


class Telemetry:
    """All metrics of one server, in a registry of their own, and its live figures."""

    def __init__(self, read: ReadFigures, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        self.live = LiveFigures(read, clock=clock)
        self.clock = clock
        self.registry.register(_EngineCollector(read))
        ProcessCollector(registry=self.registry)

        def histogram(name: str, text: str, edges: Sequence[float]) -> _Histograms:
            made = _Histograms(f"vllm:{name}", text, edges)
            self.registry.register(made)
            return made

        seconds = REQUEST_BUCKETS_S
        self.first_token = histogram(
            "time_to_first_token_seconds", "From arrival to the first token.", FIRST_TOKEN_BUCKETS_S
        )
        self.inter_token = histogram(
            "inter_token_latency_seconds", "From one token of a sample to the next.", INTER_TOKEN_BUCKETS_S
        )
        self.end_to_end = histogram("e2e_request_latency_seconds", "From arrival to the end.", seconds)
        self.queue = histogram("request_queue_time_seconds", "Waiting for the first step.", seconds)
        self.prefill = histogram("request_prefill_time_seconds", "Computing the prompt.", seconds)
        self.decode = histogram("request_decode_time_seconds", "Generating.", seconds)
        self.prompt_tokens = histogram("request_prompt_tokens", "Prompt tokens of a request.", TOKEN_BUCKETS)
        self.generation_tokens = histogram(
            "request_generation_tokens", "Tokens generated for a request.", TOKEN_BUCKETS
        )
        self.success = Counter(
            "vllm:request_success",
            "Samples by the way they ended; `abort`: the client left, `error`: the engine failed.",
            ["model_name", "finished_reason"],
            registry=self.registry,
        )
        self.errors = Counter(
            "temper:request_errors",
            "Requests refused or failed, by the code of the error.",
            ["model_name", "code"],
            registry=self.registry,
        )

    def observer(self, model: str) -> StreamObserver:
        """Watches one request to `model`, from now on."""
        return StreamObserver(self, model)

    def exposition(self) -> tuple[bytes, str]:
        """The metrics in Prometheus' text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class StreamObserver:
    """Watches the events of one request. Cheap: it stands in the path of every token.

    Show it each event, then `close` it whatever happened: a stream that ended without `Done` or
    `Failed` was left by its client.
    """

    __slots__ = ("_born", "_clock", "_ended", "_first", "_gaps", "_has_ids", "_last", "_live", "_model", "_telemetry")

    def __init__(self, telemetry: Telemetry, model: str) -> None:
        self._telemetry = telemetry
        self._live = telemetry.live
        self._clock = telemetry.clock
        self._model = model
        self._gaps = telemetry.inter_token.of(model)
        self._born = telemetry.clock()
        self._last: dict[int, float] = {}
        self._first = True
        self._has_ids = False
        self._ended = False

    def see(self, event: Event) -> None:
        """Take note of one event."""
        if type(event) is Delta:
            if event.channel != "prompt":
                self._delta(event)
        elif isinstance(event, ToolDelta):
            self._output(event.index, 1)
        elif isinstance(event, Started):
            self._live.add_prompt(self._clock(), event.prompt_tokens, event.cached_tokens)
        elif isinstance(event, Finished):
            self._telemetry.success.labels(self._model, event.reason).inc()
        elif isinstance(event, Done):
            self._done(event)
        elif isinstance(event, Failed):
            self.fail(event.error.code)

    def fail(self, code: str) -> None:
        """The request was refused, or broke, with an error of this `code`."""
        if not self._ended:
            self._ended = True
            now = self._clock()
            self._telemetry.errors.labels(self._model, code).inc()
            self._telemetry.success.labels(self._model, "error").inc()
            self._live.add_end(now, now - self._born, "failed")

    def close(self) -> None:
        """No more events will come."""
        if not self._ended:
            self._ended = True
            now = self._clock()
            self._telemetry.success.labels(self._model, "abort").inc()
            self._live.add_end(now, now - self._born, "cancelled")

    def _delta(self, event: Delta) -> None:
        """Count by token ids where the engine gives them, else a token for each piece of text."""
        num_tokens = len(event.token_ids)
        if num_tokens:
            self._has_ids = True
        elif event.text and not self._has_ids:
            num_tokens = 1
        if num_tokens:
            self._output(event.index, num_tokens)

    def _output(self, index: int, num_tokens: int) -> None:
        now = self._clock()
        self._live.add_output(now, num_tokens)
        last = self._last.get(index)
        self._last[index] = now
        if last is not None:
            self._gaps.observe(now - last)
            self._live.add_gap(now, now - last)
        elif self._first:
            self._first = False
            self._telemetry.first_token.of(self._model).observe(now - self._born)
            self._live.add_first_token(now, now - self._born)

    def _done(self, event: Done) -> None:
        self._ended = True
        telemetry, model, now = self._telemetry, self._model, self._clock()
        telemetry.end_to_end.of(model).observe(now - self._born)
        telemetry.queue.of(model).observe(event.timings.queue_s)
        telemetry.prefill.of(model).observe(event.timings.prefill_s)
        telemetry.decode.of(model).observe(event.timings.decode_s)
        telemetry.prompt_tokens.of(model).observe(event.usage.prompt_tokens)
        telemetry.generation_tokens.of(model).observe(event.usage.completion_tokens)
        self._live.add_end(now, now - self._born, "done")
