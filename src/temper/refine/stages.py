"""A long job as stages, each of which leaves a folder with a manifest: a second call goes on where the first stopped.

A stage is done when its manifest is there, and is known by its settings and by the stages that it builds on. It knows
nothing of what stages do.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from temper.errors import Invalid, MalformedFile
from temper.refine.telling import Tell

MANIFEST: Final = "stage.json"
SCHEMA: Final = "temper.stage/1"

Results = Mapping[str, Mapping[str, Any]]
"""What stages found, by their names."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of a job."""

    name: str
    """Of its folder too."""
    run: Callable[[Path, Results, Tell], Mapping[str, Any]]
    """Given the folder, the results of `needs` and who is told how far it is; returns plain data. Called again after a
    kill, it goes on with what lies in the folder or starts over."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All that decides its result, beside the stages that it needs."""
    needs: tuple[str, ...] = ()
    resumable: bool = False
    """Whether little is lost when it is interrupted: the budget's end may then fall into it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job came."""

    results: dict[str, Mapping[str, Any]]
    """Of all stages that are done."""
    seconds: dict[str, float]
    """What each of them took, summed over the calls that worked on it."""
    left: tuple[str, ...]
    """Stages that are not done."""
    reason: str = ""
    """Why they are left."""


class _OutOfTime(Exception):
    """The budget ended within a stage."""


def run_stages(
    stages: Sequence[Stage],
    folder: Path,
    *,
    only: Sequence[str] = (),
    budget_s: float | None = None,
    tell: Tell = lambda what, done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> Progress:
    """Run what is not done yet, in order; with `only`, these stages alone, on what earlier calls left.

    No stage begins after `budget_s` seconds, and one that is resumable ends then.

    Raises:
        Invalid: a stage is unknown, what it needs is not done, or a folder holds one with other settings.
        MalformedFile: a manifest is damaged.
    """
    names = [stage.name for stage in stages]
    for name in only:
        if name not in names:
            raise Invalid(f"there is no stage '{name}'", param="stages", hint=f"there are {', '.join(names)}")
    ends = None if budget_s is None else time.monotonic() + budget_s
    results: dict[str, Mapping[str, Any]] = {}
    seconds: dict[str, float] = {}
    prints: dict[str, str] = {}
    left: list[str] = []
    reason = ""
    for stage in stages:
        prints[stage.name] = _fingerprint(stage, prints)
        place = folder / stage.name
        known = _known(place, stage, prints[stage.name])
        if known is not None:
            results[stage.name], seconds[stage.name] = known["result"], known["seconds"]
            continue
        if reason or (only and stage.name not in only):
            left.append(stage.name)
            continue
        if missing := [need for need in stage.needs if need not in results]:
            raise Invalid(f"stage '{stage.name}' builds on {', '.join(missing)}, which is not done", param="stages",
                          hint=f"run {', '.join(missing)} first")  # fmt: skip
        if ends is not None and time.monotonic() >= ends:
            left.append(stage.name)
            reason = "the budget is spent"
            continue
        say(f"stage {stage.name}")
        try:
            results[stage.name], seconds[stage.name] = _run(stage, place, prints[stage.name], results, ends, tell)
        except _OutOfTime:
            left.append(stage.name)
            reason = f"the budget ended within stage {stage.name}, which goes on from there"
    return Progress(results, seconds, tuple(left), reason or ("not asked for" if left else ""))


def _run(
    stage: Stage, place: Path, fingerprint: str, results: Results, ends: float | None, tell: Tell
) -> tuple[Mapping[str, Any], float]:
    place.mkdir(parents=True, exist_ok=True)
    clock, began = place / "clock.json", time.monotonic()
    before = json.loads(clock.read_text())["seconds"] if clock.is_file() else 0.0

    def told(what: str, done: int, total: int) -> None:
        tell(f"{stage.name}: {what}", done, total)
        if stage.resumable and ends is not None and time.monotonic() >= ends:
            raise _OutOfTime

    try:
        found = stage.run(place, {need: results[need] for need in stage.needs}, told)
    finally:
        spent = before + time.monotonic() - began
        _write(clock, {"seconds": spent})
    result = json.loads(json.dumps(found, allow_nan=False, default=str))
    manifest = {
        "schema": SCHEMA, "stage": stage.name, "fingerprint": fingerprint, "settings": stage.settings,
        "needs": list(stage.needs), "result": result, "seconds": round(spent, 1),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    _write(place / MANIFEST, manifest)
    return result, manifest["seconds"]


def _known(place: Path, stage: Stage, fingerprint: str) -> dict[str, Any] | None:
    path = place / MANIFEST
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
        same, _, _ = found["fingerprint"] == fingerprint, found["result"], found["seconds"]
    except (ValueError, LookupError, TypeError) as error:
        raise MalformedFile(f"'{path}' cannot be read: {error}", hint="remove it: the stage is done again") from error
    if not same:
        changed = [name for name, value in _plain(stage.settings).items() if found["settings"].get(name) != value]
        raise Invalid(
            f"stage '{stage.name}' in '{place}' was made otherwise: "
            + (f"{', '.join(changed)} differ" if changed else "a stage that it builds on is another one"),
            param="out",
            hint=f"name another folder, or remove '{place}' to make it again",
        )
    result: dict[str, Any] = found
    return result


def _fingerprint(stage: Stage, prints: Mapping[str, str]) -> str:
    plain = json.dumps(
        [stage.name, _plain(stage.settings), [prints[need] for need in stage.needs]], sort_keys=True, ensure_ascii=True
    )
    return hashlib.sha256(plain.encode()).hexdigest()


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dict(settings), default=str))
    return found


def _write(path: Path, what: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(what, indent=2, ensure_ascii=False), "utf-8")
    part.replace(path)
