"""Flat options to workloads: what a command line or a caller changes of a named workload, one variant per load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from temper.errors import Invalid
from temper.measure.workload import lengths, schema
from temper.measure.workload.schema import Closed, Open, Synthetic, Workload

REQUESTS_PER_USER = 8
"""Requests of a closed loop when nobody says: enough that ramp-up and tail are a small part."""


@dataclass(frozen=True, slots=True)
class Load:
    """A workload by name or as it is, and what is changed of it. None: as the workload says."""

    workload: str | Workload | None = None
    concurrency: tuple[int, ...] = ()
    """Closed loop, one variant for each."""
    rate: tuple[float, ...] = ()
    """Open loop, one variant for each."""
    requests: int | None = None
    warmup: int | None = None
    seed: int | None = None
    input_tokens: str | int | None = None
    """A length as `lengths.parse` reads it."""
    output_tokens: str | int | None = None

    def variants(self) -> list[Workload]:
        """One workload for each load that is asked for.

        Raises:
            NotFound: no workload has the name.
            Invalid: options that contradict each other or break a rule.
        """
        base = schema.resolve(self.workload) if isinstance(self.workload, str) else self.workload or Workload()
        data = base.model_dump(mode="json")
        for name in ("requests", "warmup", "seed"):
            if getattr(self, name) is not None:
                data[name] = getattr(self, name)
        for name in ("input_tokens", "output_tokens"):
            if getattr(self, name) is not None:
                self._set_length(base, data, name)
        if self.concurrency and self.rate:
            raise Invalid("a load is closed (concurrency) or open (rate), not both", param="rate")
        arrivals: list[Any] = [Closed(concurrency=count).model_dump() for count in self._checked("concurrency")]
        arrivals += [Open(rate=rate).model_dump() for rate in self._checked("rate")]
        return [self._variant(base, data, given) for given in arrivals or [data["arrivals"]]]

    def _variant(self, base: Workload, data: dict[str, Any], arrivals: dict[str, Any]) -> Workload:
        changed = {**data, "arrivals": arrivals}
        if self.requests is None and arrivals["kind"] == "closed":
            changed["requests"] = max(base.requests, REQUESTS_PER_USER * arrivals["concurrency"])
        return schema.validate(changed, base.name)

    def _set_length(self, base: Workload, data: dict[str, Any], name: str) -> None:
        length = lengths.parse(str(getattr(self, name))).model_dump()
        if name == "input_tokens" and not isinstance(base.content, Synthetic):
            raise Invalid(
                f"the prompts of a '{base.content.kind}' workload have their own lengths",
                param=name,
                hint="leave it out, or use synthetic content",
            )
        if name not in data["content"]:
            if "max_output_tokens" not in data["content"] or length["kind"] != "fixed":
                raise Invalid(f"a '{base.content.kind}' workload takes no lengths of answers", param=name)
            data["content"] = {**data["content"], "max_output_tokens": length["tokens"]}
            return
        data["content"] = {**data["content"], name: length}

    def _checked(self, name: str) -> tuple[Any, ...]:
        for value in getattr(self, name):
            if not value > 0:
                raise Invalid(f"'{name}' must be above 0, but is {value}", param=name)
        return tuple(getattr(self, name))
