"""The plan of a study: all that is asked, as plain data in the ledger, from which a killed study is made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from temper.measure.workload import schema as workloads
from temper.measure.workload.schema import Workload
from temper.profile import store
from temper.profile.schema import Profile
from temper.tuner import objective as objectives
from temper.tuner.objective import Goal, Limit
from temper.tuner.settings import Settings, settings
from temper.tuner.space import Space, Value, branch_of

ANSWER_METRICS = ("quality", "cost_per_correct")
"""Objectives that are measured by asking the quality suite rather than by load."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One study, asked for and not begun. The first profile is the incumbent."""

    workload: Workload
    profiles: tuple[tuple[str, Profile], ...]
    """(name, profile) of each engine to choose from."""
    settings: Settings
    objective: str = ""
    """In words; see `objective.parse`."""
    slo: bool = True
    """The limits of the workload and of the incumbent's profile hold besides."""
    quality_margin: float | None = None
    """None: as the suite's own metric has it."""
    suite: str | None = None
    """The quality suite by name; None: quality is not measured."""
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    ladders: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)
    """Caps by the end of a path: `{"threads": 2}`."""
    price_per_hour: float = 1.0
    rehearse: str | None = None
    """A recording or a scenario, in place of engines."""

    def goal(self) -> Goal:
        """What is asked for.

        Raises:
            Invalid: the objective's words cannot be understood.
        """
        limits: tuple[Limit, ...] = ()
        if self.slo:
            limits = objectives.of_workload(self.workload.slo) + objectives.of_profile(self.profiles[0][1].slo)
        return objectives.parse(self.objective, limits, self.quality_margin)

    def space(self) -> Space:
        """What is varied.

        Raises:
            Invalid: a name fits no tunable field of any profile, or nothing is left.
        """
        about_answers = self.goal().objective.metric in ANSWER_METRICS
        several = len(self.profiles) > 1
        return Space(
            [
                branch_of(
                    name,
                    profile,
                    only=self.only,
                    without=self.without,
                    ladders=self.ladders,
                    most=self.most,
                    text_knobs=about_answers,
                    lenient=several,
                )
                for name, profile in self.profiles
            ]
        )

    def document(self) -> dict[str, Any]:
        """Plain data; `plan` reads it back."""
        return {
            "workload": self.workload.model_dump(mode="json"),
            "profiles": [[name, profile.model_dump(mode="json")] for name, profile in self.profiles],
            "settings": self.settings.document(),
            "objective": self.objective,
            "slo": self.slo,
            "quality_margin": self.quality_margin,
            "suite": self.suite,
            "only": list(self.only),
            "without": list(self.without),
            "ladders": {name: list(values) for name, values in self.ladders.items()},
            "most": dict(self.most),
            "price_per_hour": self.price_per_hour,
            "rehearse": self.rehearse,
        }


def plan(document: Mapping[str, Any]) -> Plan:
    """What `Plan.document` wrote."""
    read = Plan(
        workload=workloads.validate(document["workload"]),
        profiles=tuple((name, store.validate(data, f"profile '{name}'")) for name, data in document["profiles"]),
        settings=settings(document["settings"]),
    )
    given = ("objective", "slo", "quality_margin", "suite", "most", "price_per_hour", "rehearse")
    return replace(
        read,
        only=tuple(document["only"]),
        without=tuple(document["without"]),
        ladders={name: tuple(values) for name, values in document["ladders"].items()},
        **{name: document[name] for name in given},
    )
