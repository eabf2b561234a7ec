"""Equal questions, one answer: whole answers kept in memory and played again as events.

Equal means equal in everything that may shape the answer: the key is an HMAC, under a secret of the tenant, over the
canonical JSON of the whole request but a short ignore list, and of what the child is. Semantic likeness is not used:
reversed questions look alike. What may be kept: temperature 0, a seed, or a request that says `cache: "on"`; complete
answers only. Equal questions at the same time are computed once. The secrets live and die with the process.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace

from temper.engines.base import Capabilities, Engine
from temper.engines.combine.combinator import Child, Combinator
from temper.engines.combine.figures import check
from temper.engines.combine.flight import Flight
from temper.engines.combine.patience import events
from temper.engines.kinds import Context, build_section
from temper.errors import Invalid
from temper.profile import schema
from temper.profile.schema import Profile, Section
from temper.types import Accepted, CacheState, Delta, Done, Event, Request, Timings, ToolDelta

EXTENSION = "cache"
"""The extension that callers speak to this engine with: `on` or `no-store`."""

IGNORED = ("id", "priority", "deadline_s", "tenant")
"""Fields of a request that do not shape its answer; the tenant is in the secret."""

MOST_OF_BUDGET = 8
"""An answer larger than this part of the budget is not kept."""


@dataclass(frozen=True, slots=True)
class _Kept:
    events: tuple[Event, ...]
    num_bytes: int
    born: float


class CachedEngine(Combinator):
    """See the module."""

    name = "cached"

    def __init__(
        self,
        config: schema.CachedEngine,
        context: Context | None = None,
        *,
        engine: Engine | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`engine` stands in for the one that `config` describes; `clock` gives seconds for the age of answers."""
        if engine is None:
            assert context is not None, "an engine is built either from a context or from an engine"
            engine = build_section(config.engine, context)
        super().__init__([Child(engine.name, config.engine, engine)])
        self._config = config
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._num_bytes = 0
        self._flights: dict[bytes, Flight] = {}
        self._counts = {"hits_total": 0, "misses_total": 0, "bypassed_total": 0, "joined_total": 0, "evicted_total": 0}

    def _parts(self, section: Section) -> list[tuple[str, Section]] | None:
        if not isinstance(section, schema.CachedEngine):
            return None
        return [(self.children[0].name, section.engine)]

    def _take(self, section: Section) -> None:
        assert isinstance(section, schema.CachedEngine)
        self._config = section
        self._evict()

    async def apply(self, profile: Profile) -> bool:
        """As other combinators; a child that changed makes everything kept worthless."""
        before = self.children[0].section
        changed = await super().apply(profile)
        if not changed or self.children[0].section != before:
            self._forget()
        return changed

    async def stop(self, drain_s: float = 0.0) -> None:
        """Stop, and forget everything."""
        await super().stop(drain_s)
        for flight in list(self._flights.values()):
            await flight.close()
        self._forget()

    def _forget(self) -> None:
        self._kept.clear()
        self._flights.clear()  # those under way end for who listens, and are not kept
        self._num_bytes = 0
        self._secret = secrets.token_bytes(32)

    def _combined(self, cans: Sequence[Capabilities]) -> Capabilities:
        return replace(cans[0], response_cache=True)

    def _details(self) -> Mapping[str, object]:
        return {**self._counts, "entries": len(self._kept), "bytes": self._num_bytes}

    # -- a request -------------------------------------------------------------------------------------

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """The events of the child, or of an equal request before."""
        self._check_open()
        check(request, self.capabilities(), self.name)
        wish = request.extensions.get(EXTENSION)
        if wish not in (None, "on", "no-store"):
            raise Invalid(f"the extension 'cache' is 'on' or 'no-store', but is {wish!r}", param="extensions")
        if wish is not None and not self.children[0].engine.capabilities().response_cache:
            rest = {key: value for key, value in request.extensions.items() if key != EXTENSION}
            request = replace(request, extensions=rest)
        if not _is_admitted(request, wish):
            self._counts["bypassed_total"] += 1
            async with aclosing(events(self.children[0].engine, request)) as stream:
                async for event in stream:
                    yield self._told(event, "bypass")
            return
        key = self._key(request)
        kept = self._look_up(key)
        if kept is not None:
            self._counts["hits_total"] += 1
            for event in kept.events:
                yield event
            return
        flight = self._flights.get(key)
        if flight is None:
            self._counts["misses_total"] += 1
            flight = self._flights[key] = Flight(self.children[0].engine, request, self._landing(key, request))
        else:
            self._counts["joined_total"] += 1
        async with aclosing(flight.listen(request.deadline_s)) as stream:
            async for event in stream:
                yield self._told(event, "miss")

    def _told(self, event: Event, state: CacheState) -> Event:
        if isinstance(event, Accepted):
            return Accepted(event.queue_position, event.cache if event.cache == "hit" else state)
        if isinstance(event, Done):
            return self._signed(event, self.children[0])
        return event

    def _landing(self, key: bytes, request: Request) -> Callable[[Flight], None]:
        """What is done when a flight is over: forget it, and keep its answer if it is whole."""

        def land(flight: Flight) -> None:
            if self._flights.get(key) is not flight:
                return  # what is kept was forgotten meanwhile
            del self._flights[key]
            done = flight.events[-1] if flight.events else None
            if isinstance(done, Done):
                self._keep(key, flight.events, done)

        return land

    # -- what is kept ----------------------------------------------------------------------------------

    def _key(self, request: Request) -> bytes:
        tenant_secret = hmac.digest(self._secret, (request.tenant or "").encode(errors="replace"), "sha256")
        fields = {name: value for name, value in asdict(request).items() if name not in IGNORED}
        child = self.children[0]
        said = {
            "request": fields,
            "engine": child.section.model_dump(mode="json"),
            "is": repr(child.engine.capabilities()),
        }
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":"), default=repr, ensure_ascii=True)
        return hmac.digest(tenant_secret, canonical.encode(), "sha256")

    def _look_up(self, key: bytes) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if self._config.max_age_s is not None and self._clock() - kept.born > self._config.max_age_s:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept

    def _keep(self, key: bytes, heard: Sequence[Event], done: Done) -> None:
        signed = self._signed(done, self.children[0], cache_hit=True)
        played = (Accepted(cache="hit"), *heard[1:-1], replace(signed, timings=Timings()))
        size = sum(map(_size, played))
        if size > self._config.budget_bytes // MOST_OF_BUDGET:
            return
        self._drop(key)
        self._kept[key] = _Kept(played, size, self._clock())
        self._num_bytes += size
        self._evict()

    def _evict(self) -> None:
        while self._num_bytes > self._config.budget_bytes:
            self._drop(next(iter(self._kept)))
            self._counts["evicted_total"] += 1

    def _drop(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._num_bytes -= kept.num_bytes


def _is_admitted(request: Request, wish: str | None) -> bool:
    """Whether the answer to this request may be kept, and an earlier one given."""
    if wish is not None:
        return wish == "on"
    sampling = request.sampling
    return sampling.seed is not None or (sampling.temperature == 0 and sampling.temperature_schedule is None)


def _size(event: Event) -> int:
    """About how many bytes an event takes."""
    if isinstance(event, Delta):
        entries = sum(1 + len(entry.top) for entry in event.logprobs or ())
        return 200 + 2 * len(event.text) + 40 * len(event.token_ids) + 300 * entries
    if isinstance(event, ToolDelta):
        return 300 + 2 * len(event.arguments_fragment)
    return 400
