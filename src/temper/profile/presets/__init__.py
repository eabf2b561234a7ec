"""Named starting points, kept as TOML beside this file: deployments, and tasks under `tasks/`.

A deployment preset is a whole profile with only its differences from the defaults written down. A task
preset is a set of sampling values for one kind of work (spec D2), chosen by name in a request
(`preset`) or in a profile (`engine.sampling.preset`). Knows nothing of engines.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from pydantic import Field

from temper.errors import NotFound
from temper.profile.native import SamplingConfig
from temper.profile.section import Section


class TaskPreset(Section):
    """Sampling for one kind of work. Whatever a request or the profile sets itself wins over it."""

    description: str
    """What it is for, in one sentence."""
    sampling: SamplingConfig
    """Fields that are None leave the matter to the checkpoint or stay neutral."""
    max_tokens: int | None = Field(None, ge=1)
    """New tokens for a request that names no limit."""


@cache
def _names(folder: str) -> tuple[str, ...]:
    entries = files(__package__).joinpath(folder).iterdir()
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in entries if entry.name.endswith(".toml")))


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest of `known`, or all of them when nothing is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def preset_names() -> tuple[str, ...]:
    """Names of the deployment presets, sorted."""
    return _names("")


def preset_text(name: str) -> str:
    """The TOML of a deployment preset.

    Raises:
        NotFound: no preset has this name; the hint names the nearest.
    """
    if name not in preset_names():
        raise NotFound(f"no deployment preset is called '{name}'", param="profile", hint=nearest(name, preset_names()))
    return files(__package__).joinpath(f"{name}.toml").read_text("utf-8")


def describe_preset(name: str) -> str:
    """The comment at the top of a deployment preset: what it is for."""
    lines = preset_text(name).splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# ").strip())
    return " ".join(comment)


def task_presets() -> tuple[str, ...]:
    """Names of the task presets, sorted."""
    return _names("tasks")


@cache
def task_preset(name: str) -> TaskPreset:
    """The task preset called `name`.

    Raises:
        NotFound: no task preset has this name; the hint names the nearest.
    """
    if name not in task_presets():
        raise NotFound(f"no task preset is called '{name}'", param="preset", hint=nearest(name, task_presets()))
    text = files(__package__).joinpath("tasks", f"{name}.toml").read_text("utf-8")
    return TaskPreset.model_validate(tomllib.loads(text))
