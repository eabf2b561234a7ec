"""The verdict: what every judgement of this house comes out as, whoever made it.

An effect is B/A − 1 of the named metric (rates and scores: B − A). A verdict without enough evidence is
`inconclusive`, never a pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["pass", "fail", "inconclusive"]
Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a claim about one metric holds, by how much, and how sure that is."""

    verdict: Outcome
    metric: str
    better: Better
    claim: str
    """What was judged, in words: `B is lower`, `B is not more than 2 % worse`, `at most 1 % fail`."""
    effect: float | None
    """None where nothing could be estimated; `reason` says why."""
    interval: tuple[float, float] | None
    """Of the effect, at `confidence`; an end that is not bounded is infinite."""
    confidence: float
    method: str
    """The test by its standard name, such as `paired t on logs`."""
    reason: str
    """Why the verdict is what it is, for people."""
    num_units: int = 0
    """Independent units on each side (pairs where paired); requests in one run are not independent."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Figures behind it: means, effect size, p-value, seeds, counts."""
    guardrails: tuple[Verdict, ...] = ()
    """Verdicts that had to hold as well."""

    def document(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def overall(target: Verdict, guardrails: tuple[Verdict, ...]) -> Outcome:
    """Pass when the target and every guardrail pass, fail when any of them fails, else inconclusive."""
    outcomes = {target.verdict, *(guardrail.verdict for guardrail in guardrails)}
    return "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"
