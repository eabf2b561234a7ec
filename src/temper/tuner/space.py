"""The space of a study: every field that a profile declares tunable, each with a ladder of values.

Reads the `Tunable` beside a field's type through `profile.walk`, and nothing else: a field that appears in the
schema appears here. All ladders are finite, so that a point can be named, met again, and replayed.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from temper.errors import Invalid
from temper.profile import store
from temper.profile.presets import nearest
from temper.profile.schema import Profile
from temper.profile.section import Tunable
from temper.profile.walk import Field, tunable_fields

Value = str | int | float | bool | None
"""A value of a knob; None: left as the branch's profile has it, which says `auto` or nothing there."""

LINEAR_STEPS = 11
"""Values on the ladder of a wide linear range."""
SMALL_RANGE = 16
"""A range of so many whole numbers or fewer is tried in full."""
TEXT_KNOBS = ("*.sampling.*", "*.reasoning.*")
"""Knobs that change what is said. They enter a study whose objective looks at answers, or by name."""


@dataclass(frozen=True, slots=True)
class Knob:
    """One field that a study varies."""

    path: str
    """Dotted, from the root of the profile."""
    values: tuple[Value, ...]
    ordered: bool
    """Neighbours on the ladder are alike."""
    restart: bool
    """A change takes effect only in a new engine process."""
    incumbent: Value
    """What the branch's profile says; always one of `values`."""

    @property
    def name(self) -> str:
        """The path without its first part, for people."""
        return self.path.removeprefix("engine.")


@dataclass(frozen=True, slots=True)
class Branch:
    """One engine to search over: a profile and the knobs that it declares."""

    name: str
    profile: Profile
    knobs: tuple[Knob, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One place in the space: a branch and a value for each of its knobs."""

    branch: str
    values: tuple[tuple[str, Value], ...]
    """(path, value) in the order of the branch's knobs."""

    @property
    def key(self) -> str:
        """The same text for the same point, in every process."""
        return json.dumps([self.branch, self.values], separators=(",", ":"))

    def value(self, path: str) -> Value:
        """The value at `path`; None where the branch has no such knob."""
        return dict(self.values).get(path)


class Space:
    """All points of a study. The first branch's own profile is the incumbent."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        self.branches = tuple(branches)
        self._by_name = {branch.name: branch for branch in branches}
        self._profiles: dict[Point, Profile] = {}
        if not branches or len(self._by_name) != len(branches):
            names = [branch.name for branch in branches]
            raise Invalid(f"a study needs branches with names that differ, but got {names}", param="engines")

    @property
    def incumbent(self) -> Point:
        """Where the search starts from and what it must beat."""
        first = self.branches[0]
        return Point(first.name, tuple((knob.path, knob.incumbent) for knob in first.knobs))

    @property
    def size(self) -> int:
        """How many points there are."""
        return sum(math.prod(len(knob.values) for knob in branch.knobs) for branch in self.branches)

    @property
    def num_dimensions(self) -> int:
        """Coordinates that `at` reads: one for the branch, one for each knob of the widest branch."""
        return 1 + max(len(branch.knobs) for branch in self.branches)

    def branch(self, name: str) -> Branch:
        """The branch called `name`."""
        return self._by_name[name]

    def at(self, coordinates: Sequence[float]) -> Point:
        """The point at `coordinates`, each in [0, 1): equal shares of it belong to each value of a ladder."""
        branch = self.branches[_rung(coordinates[0], len(self.branches))]
        chosen = zip(branch.knobs, coordinates[1:], strict=False)
        return Point(branch.name, tuple((knob.path, knob.values[_rung(u, len(knob.values))]) for knob, u in chosen))

    def profile(self, point: Point) -> Profile:
        """The deployment at `point`.

        Raises:
            ProfileError: these values break a rule of the schema together.
        """
        if point in self._profiles:
            return self._profiles[point]
        branch = self.branch(point.branch)
        changed = {
            knob.path: point.value(knob.path)
            for knob in branch.knobs
            if point.value(knob.path) is not None and point.value(knob.path) != knob.incumbent
        }
        found = store.override(branch.profile, changed) if changed else branch.profile
        self._profiles[point] = found
        return found

    def cold_part(self, point: Point) -> Point:
        """The point without its hot knobs: two points with the same cold part can share an engine's process."""
        cold = {knob.path for knob in self.branch(point.branch).knobs if knob.restart}
        return Point(point.branch, tuple((path, value) for path, value in point.values if path in cold))

    def grid(self) -> list[Point]:
        """Every point, in the order of branches and ladders."""
        found = []
        for branch in self.branches:
            for values in itertools.product(*(knob.values for knob in branch.knobs)):
                paths = (knob.path for knob in branch.knobs)
                found.append(Point(branch.name, tuple(zip(paths, values, strict=True))))
        return found

    def document(self) -> list[dict[str, Any]]:
        """Plain data for JSON: what was varied, over which values."""
        return [
            {
                "branch": branch.name,
                "knobs": [
                    {
                        "path": knob.path,
                        "values": list(knob.values),
                        "restart": knob.restart,
                        "incumbent": knob.incumbent,
                    }
                    for knob in branch.knobs
                ],
            }
            for branch in self.branches
        ]


def branch_of(
    name: str,
    profile: Profile,
    *,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    text_knobs: bool = False,
    most: Mapping[str, float] | None = None,
    ladders: Mapping[str, Sequence[Value]] | None = None,
    lenient: bool = False,
) -> Branch:
    """The branch of a profile with the knobs that it declares.

    `only` and `without` are paths, ends of paths or patterns such as `kv.*`; `text_knobs` lets sampling and thinking
    in without being named. `most` caps ranges by the end of a path (`{"threads": 2}`: the machine's cores), and
    `ladders` gives a knob its values in place of the declared ones. `lenient`: names that fit no field here are
    another branch's.

    Raises:
        Invalid: a name fits no tunable field, or nothing is left to vary.
    """
    declared = tunable_fields(profile)
    given = dict(ladders or {})
    for pattern in (*only, *without, *given):
        if not lenient and not any(fits(field.path, pattern) for field in declared):
            names = [field.path.removeprefix("engine.") for field in declared]
            raise Invalid(
                f"'{pattern}' is no tunable field of {name}",
                param="knobs",
                hint=nearest(pattern, names),
            )
    knobs = []
    for field in declared:
        is_text = any(fnmatch.fnmatchcase(field.path, pattern) for pattern in TEXT_KNOBS)
        named = any(fits(field.path, pattern) for pattern in only)
        if (only and not named) or (is_text and not named and not text_knobs):
            continue
        if any(fits(field.path, pattern) for pattern in without):
            continue
        ladder = next((tuple(values) for pattern, values in given.items() if fits(field.path, pattern)), None)
        limit = next((value for end, value in (most or {}).items() if fits(field.path, end)), None)
        knob = _knob(field, _value(profile, field.path), limit, ladder)
        if len(knob.values) > 1:
            knobs.append(knob)
    if not knobs:
        raise Invalid(f"there is nothing to tune in {name}", param="knobs", hint="name fields that are tunable")
    return Branch(name, profile, tuple(knobs))


def fits(path: str, pattern: str) -> bool:
    """Whether `pattern` names `path`: in full, by its end, or with wildcards."""
    return path == pattern or path.endswith(f".{pattern}") or any(
        fnmatch.fnmatchcase(path, wild) for wild in (pattern, f"*.{pattern}")
    )  # fmt: skip


def _knob(field: Field, current: Value, most: float | None, ladder: tuple[Value, ...] | None) -> Knob:
    tunable = field.tunable
    assert tunable is not None
    values = ladder if ladder is not None else _ladder(tunable, whole=_is_whole(field.annotation), most=most)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if isinstance(current, int | float) and not isinstance(current, bool) and numeric:
        values = tuple(sorted({*values, current}, key=lambda value: float(value or 0)))
    elif current not in values:
        # `auto`, nothing, or a word beyond the range: one more choice, kept by leaving the profile as it is.
        current, numeric = None, False
        values = (None, *values)
    return Knob(field.path, values, numeric, tunable.restart, current)


def _ladder(tunable: Tunable, *, whole: bool, most: float | None) -> tuple[Value, ...]:
    if tunable.choices:
        return tuple(value for value in tunable.choices if most is None or not isinstance(value, int) or value <= most)
    assert tunable.low is not None
    assert tunable.high is not None
    low, high = tunable.low, tunable.high if most is None else max(tunable.low, min(tunable.high, most))
    if tunable.scale == "log":
        steps = max(1, round(math.log2(high / low)))
        found = [low * (high / low) ** (step / steps) for step in range(steps + 1)]
    elif whole and high - low < SMALL_RANGE:
        found = [low + step for step in range(int(high - low) + 1)]
    else:
        found = [low + (high - low) * step / (LINEAR_STEPS - 1) for step in range(LINEAR_STEPS)]
    return tuple(dict.fromkeys(round(value) if whole else float(f"{value:.4g}") for value in found))


def _is_whole(annotation: Any) -> bool:
    """Whether the field's numbers are whole ones."""
    pending, kinds = [annotation], set()
    while pending:
        item = pending.pop()
        origin = typing.get_origin(item)
        if origin is typing.Annotated:
            pending.append(typing.get_args(item)[0])
        elif origin in (typing.Union, types.UnionType):
            pending.extend(typing.get_args(item))
        else:
            kinds.add(item)
    return float not in kinds


def _value(profile: Profile, path: str) -> Value:
    value: Any = profile
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, tuple | list) else getattr(value, part)
    return typing.cast(Value, value)


def _rung(coordinate: float, count: int) -> int:
    return min(count - 1, int(coordinate * count))
