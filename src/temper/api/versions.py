"""Profiles kept as versions, by their content and that of their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.api.environment import Place, place
from temper.api.profiles import DEFAULT_PROFILE, profile
from temper.api.store import open_store
from temper.profile import store as profiles
from temper.profile.schema import Profile

if TYPE_CHECKING:
    from temper.fleet.versions import Origin, Version


def manifests(profile: Profile, where: Place | None = None) -> dict[str, str]:
    """The hashes of a profile's checkpoints, which are fetched if they are not here, and of its adapters.

    Raises:
        NotFound, FetchFailed, CheckpointError: as `models.checkpoint.open_checkpoint`.
    """
    from temper.models.adapter import adapter_version
    from temper.models.checkpoint import open_checkpoint

    here = where or place()
    found = {}
    for source in profiles.checkpoints(profile):
        found[source] = open_checkpoint(source, here.cache_dir, None, here.hub_endpoint).manifest_hash()
    for folder in profiles.adapter_folders(profile):
        found[folder] = adapter_version(Path(folder).expanduser())
    return found


def add_version(
    named: str | Path | Profile = DEFAULT_PROFILE,
    *,
    parent: str | None = None,
    origin: Origin = "person",
    source: str = "",
    note: str = "",
    where: Place | None = None,
    **overrides: Any,
) -> Version:
    """Keep a profile as a version, or find the version that it is already.

    Raises:
        NotFound, ProfileError: as `profile`; as `manifests`.
    """
    chosen = profile(named, where=where, **overrides)
    hashes = manifests(chosen, where)
    with open_store(where) as store:
        return store.versions.add(chosen, hashes, parent=parent, origin=origin, source=source, note=note)
