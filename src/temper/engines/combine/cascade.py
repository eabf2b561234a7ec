"""A cheap engine first, the next one when its answer will not do.

Every step but the last is heard out and judged before a word goes to the client: a sentence that was sent cannot be
taken back. The last step streams. `made_by.escalated` says which answers were not kept, and why.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from temper.engines.base import Capabilities, Engine
from temper.engines.combine.combinator import Child, Combinator, numbered, remaining
from temper.engines.combine.figures import check, meet, widest_context
from temper.engines.combine.patience import events
from temper.engines.kinds import Context, build_section
from temper.errors import Invalid, Rejected, TemperError
from temper.profile import schema
from temper.profile.schema import Section
from temper.types import Accepted, Delta, Done, Event, Failed, Finished, Request, ToolDelta

_REFUSAL = re.compile(
    r"^\W*(i(['’]m| am) (sorry|unable|not able|afraid)|sorry\b|i (can(no|['’])t|can not|don['’]t know|do not know)"
    r"|as an ai\b|unfortunately,? i\b|i apologi[sz]e|对不起|抱歉|我(无法|不能|不知道))",
    re.IGNORECASE,
)
_REFUSAL_CHARS = 200
"""A refusal says so at its beginning."""


class CascadeEngine(Combinator):
    """See the module."""

    name = "cascade"

    def __init__(
        self,
        config: schema.CascadeEngine,
        context: Context | None = None,
        *,
        engines: Sequence[Engine] | None = None,
    ) -> None:
        """`engines` stand in for those that `config` describes."""
        if engines is None:
            assert context is not None, "an engine is built either from a context or from engines"
            engines = [build_section(section, context) for section in config.steps]
        super().__init__(numbered(list(zip(config.steps, engines, strict=True))))
        self._counts = {child.name: {"kept_total": 0, "escalated_total": 0} for child in self.children}
        self._config = config

    def _parts(self, section: Section) -> list[tuple[str, Section]] | None:
        if not isinstance(section, schema.CascadeEngine) or len(section.steps) != len(self.children):
            return None
        return [(child.name, part) for child, part in zip(self.children, section.steps, strict=True)]

    def _take(self, section: Section) -> None:
        assert isinstance(section, schema.CascadeEngine)
        self._config = section

    def _is_needed(self, child: Child) -> bool:
        return child is self.children[-1]  # without a cheap step everything escalates, which is slow and right

    def _combined(self, cans: Sequence[Capabilities]) -> Capabilities:
        return widest_context(meet(cans, alike=False), cans)

    def _details(self) -> Mapping[str, object]:
        return {name: dict(counts) for name, counts in self._counts.items()}

    async def generate(self, request: Request) -> AsyncGenerator[Event, None]:
        """The events of the first step whose answer will do."""
        self._check_open()
        check(request, self.capabilities(), self.name)
        loop = asyncio.get_running_loop()
        began, accepted = loop.time(), False
        escalated: list[str] = []
        for child in self.children[:-1]:
            if child.name not in self._up:
                escalated.append(f"{child.name}: not started")
                continue
            heard: list[Event] = []
            reason: str | None = None
            try:
                asked = self._asked(remaining(request, began, loop.time()), child)
                async with aclosing(events(child.engine, asked, self._config.silence_s)) as stream:
                    async for event in stream:
                        if not isinstance(event, Accepted):
                            heard.append(event)
                        elif not accepted:
                            accepted = True
                            yield event
            except Rejected as error:
                reason = error.code
            except Invalid as error:
                if error.code != "context_length_exceeded":
                    raise
                reason = error.code  # a later step may have a longer context
            except TemperError as error:
                heard.append(Failed(error))
            if reason is None:
                last = heard[-1]
                if isinstance(last, Failed) and not last.error.retryable:
                    if not accepted:
                        yield Accepted()
                    yield last
                    return
                reason = last.error.code if isinstance(last, Failed) else self._fault(request, heard)
            if reason is None:
                self._counts[child.name]["kept_total"] += 1
                for event in heard:
                    yield self._shown(event, request, child, escalated)
                return
            self._counts[child.name]["escalated_total"] += 1
            escalated.append(f"{child.name}: {reason}")
        async for event in self._last(request, began, accepted, escalated):
            yield event

    async def _last(
        self, request: Request, began: float, accepted: bool, escalated: Sequence[str]
    ) -> AsyncGenerator[Event, None]:
        """The last step, as it comes."""
        child = self.children[-1]
        try:
            asked = remaining(request, began, asyncio.get_running_loop().time())
            async with aclosing(events(child.engine, asked, self._config.silence_s)) as stream:
                async for event in stream:
                    if isinstance(event, Accepted):
                        if not accepted:
                            accepted = True
                            yield event
                    elif isinstance(event, Done):
                        self._counts[child.name]["kept_total"] += 1
                        yield self._signed(event, child, escalated=(*escalated, *event.made_by.escalated))
                    else:
                        yield event
        except TemperError as error:
            if not accepted and isinstance(error, Invalid | Rejected):
                raise
            if not accepted:
                yield Accepted()
            yield Failed(error)

    def _asked(self, request: Request, child: Child) -> Request:
        """The request with what the rules need to see."""
        wants = self._config.min_mean_logprob is not None and request.logprobs is None
        if wants and child.engine.capabilities().logprobs:
            return replace(request, logprobs=0)
        return request

    def _shown(self, event: Event, request: Request, child: Child, escalated: Sequence[str]) -> Event:
        """An event of a kept answer, without what only the rules asked for."""
        if isinstance(event, Delta) and event.logprobs is not None and request.logprobs is None:
            return replace(event, logprobs=None)
        if isinstance(event, Done):
            return self._signed(event, child, escalated=(*escalated, *event.made_by.escalated))
        return event

    # -- the rules -------------------------------------------------------------------------------------

    def _fault(self, request: Request, heard: Sequence[Event]) -> str | None:
        """What is wrong with an answer, in a word or two; None when it will do."""
        rules = self._config
        for index in range(request.n):
            deltas = [e for e in heard if isinstance(e, Delta) and e.index == index and e.channel != "prompt"]
            text = "".join(e.text for e in deltas if e.channel == "answer").strip()
            calls = any(isinstance(e, ToolDelta) and e.index == index for e in heard)
            reasons = {e.reason for e in heard if isinstance(e, Finished) and e.index == index}
            if rules.truncated and "length" in reasons:
                return "truncated"
            if rules.empty and not text and not calls:
                return "empty"
            if rules.refusals and _REFUSAL.search(text[:_REFUSAL_CHARS]):
                return "refusal"
            if rules.invalid_json and _wants_json(request) and not calls and not _is_json(text):
                return "invalid JSON"
            if rules.min_mean_logprob is not None:
                values = [e.logprob for d in deltas for e in d.logprobs or () if e.logprob is not None]
                if values and sum(values) / len(values) < rules.min_mean_logprob:
                    return f"mean logprob {sum(values) / len(values):.2f}"
        return None


def _wants_json(request: Request) -> bool:
    return (request.response_format or {}).get("type") in ("json_object", "json_schema")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
