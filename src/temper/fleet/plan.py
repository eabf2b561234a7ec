"""The plan of a rollout, made before it begins: its steps, what is compared, and what may go wrong how often.

Every interval that the judge looks at holds with its share of one `alpha`, so all of them hold together with
confidence 1 − alpha, at all looks and steps; every verdict is read off them. Knows nothing of the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from temper.errors import Invalid
from temper.measure.stats.sequential import budget
from temper.profile.section import Section

Metric = Literal["errors", "wrong", "e2e", "p99", "ttft", "output"]

ABOUT: dict[Metric, str] = {
    "errors": "share of requests that fail",
    "wrong": "share of sampled answers found wrong",
    "e2e": "time to the end of the answer, geometric mean",
    "p99": "time to the end of the answer, 99th percentile",
    "ttft": "time to the first token, geometric mean",
    "output": "tokens in the answer, geometric mean",
}
"""What each metric is, in words. The first two are rates (effect B − A), the others ratios (effect B/A − 1)."""

RATES = ("errors", "wrong")
"""Judged over all steps together: their scores know each unit's share. The others are judged anew at each step, for
while the share changes with time, an arm's mean would change with the load."""


class Guardrail(Section):
    """What must not get worse."""

    metric: Metric
    """What is watched."""
    tolerance: float = Field(gt=0)
    """Harm up to this is accepted: more requests that fail (a difference), or more time (a share)."""
    proven: bool = False
    """Promote only when harm has been shown to be within the tolerance; else: unless it has been shown to be there."""
    either_way: bool = False
    """A change in the other direction is harm too, as with the length of answers."""
    weight: float = Field(1.0, gt=0)
    """Its part of alpha, beside the others'."""


GUARDRAILS = (
    Guardrail(metric="errors", tolerance=0.01, proven=True, weight=2),
    Guardrail(metric="e2e", tolerance=0.1, proven=True, weight=2),
    Guardrail(metric="p99", tolerance=0.25),
    Guardrail(metric="ttft", tolerance=0.2),
    Guardrail(metric="output", tolerance=0.15, either_way=True),
)
"""Watched in every rollout unless the plan says otherwise."""
WRONG = Guardrail(metric="wrong", tolerance=0.01, proven=True, weight=2)
"""Watched where answers are sampled for their quality."""


class Plan(Section):
    """How traffic moves to a version, and when it moves back."""

    steps: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field((0.05, 0.25, 0.5, 1.0), strict=False)
    """Shares of the candidate, ascending. The last is 1, the promotion; the evidence is complete before it."""
    target: Metric | None = None
    """What must be shown to be better; None: not being worse is enough."""
    guardrails: tuple[Guardrail, ...] = Field(GUARDRAILS, strict=False)
    """What must not get worse."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """The chance that any verdict of the whole rollout is wrong."""
    min_requests: int = Field(100, ge=1)
    """Fewest units that are judged at each step before the next one."""
    min_s: float = Field(10.0, ge=0)
    """Shortest time at each step, seconds."""
    max_requests: int | None = Field(None, ge=1)
    """Once so many units were judged in all and the evidence is still not there, it ends inconclusive."""
    max_s: float = Field(24 * 3600.0, gt=0)
    """The same after so many seconds: no traffic, no verdict."""
    patience_s: float = Field(120.0, gt=0)
    """A request that is open for longer counts as failed."""
    sticky: str = Field("extension:user", pattern=r"^(request|tenant|extension:[A-Za-z0-9_.-]{1,64})$")
    """What keeps a caller on one side. It is the unit: only a caller's first request is evidence."""
    quality: Literal["off", "sane", "agreement"] = "sane"
    """How sampled answers are judged; see `fleet.quality`."""
    quality_share: float = Field(1.0, gt=0, le=1)
    """Part of the answers that is judged so."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not self.steps or list(self.steps) != sorted(set(self.steps)) or self.steps[-1] != 1:
            raise ValueError(f"steps must ascend to 1 (100 %), but are {', '.join(f'{s:g}' for s in self.steps)}")
        if len(self.steps) < 2:
            raise ValueError("steps need at least one share below 1: there is no evidence without a comparison")
        metrics = [guardrail.metric for guardrail in self.guardrails]
        if len(set(metrics)) != len(metrics):
            raise ValueError("each metric has one guardrail at most")
        if self.target is None and not any(guardrail.proven for guardrail in self.guardrails):
            raise ValueError("a plan needs a target or a guardrail that must be proven: nothing is promoted unseen")
        return self

    @property
    def watched(self) -> dict[Metric, Guardrail]:
        """Guardrails by metric: the plan's, and that on wrong answers where they are sampled."""
        found = {guardrail.metric: guardrail for guardrail in self.guardrails}
        if self.quality != "off":
            found.setdefault("wrong", WRONG)
        return found

    @property
    def alphas(self) -> dict[str, float]:
        """Each metric's share of alpha; of those that are judged anew at each step, for one step."""
        weights = {str(metric): guardrail.weight for metric, guardrail in self.watched.items()}
        if self.target is not None:
            weights[self.target] = max(2.0, weights.get(self.target, 0.0))
        shares = budget.split(self.alpha, weights)
        steps = len(self.steps) - 1
        return {metric: share if metric in RATES else share / steps for metric, share in shares.items()}


def plan_of(fields: Mapping[str, Any]) -> Plan:
    """The plan with these fields.

    Raises:
        Invalid: a field is unknown or its value breaks its rule; names the first one.
    """
    try:
        return Plan.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(step) for step in first["loc"]) or "plan"
        rule = first["msg"].removeprefix("Value error, ")
        raise Invalid(f"the rollout's plan cannot be: {name}: {rule}", param=name) from None


def parse_steps(text: str) -> tuple[float, ...]:
    """`5,25,50,100`, in percent, as shares.

    Raises:
        Invalid: it is not a list of numbers.
    """
    try:
        return tuple(float(part) / 100 for part in text.split(",") if part.strip())
    except ValueError:
        raise Invalid(f"steps are percentages such as 5,25,50,100, not '{text}'", param="steps") from None
