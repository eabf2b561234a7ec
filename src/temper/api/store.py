"""A place's one store of versions and rollouts: where it is, whether it is there, opening it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temper.api.environment import Place, place

if TYPE_CHECKING:
    from temper.fleet.store import Store


def store_url(where: Place | None = None) -> str:
    """Where the place keeps its versions and rollouts."""
    from temper.fleet.store import url_of

    here = where or place()
    return here.store_url or url_of(here.home)


def store_exists(where: Place | None = None) -> bool:
    """Whether anything was ever kept; looks without importing or making anything."""
    here = where or place()
    return here.store_url is not None or (here.home / "fleet.db").exists()


def open_store(where: Place | None = None) -> Store:
    """The place's store, made if it is missing; close it, or use it as a context manager.

    Raises:
        Invalid, MissingExtra, StoreUnreachable: as `fleet.store.Store`.
    """
    from temper.fleet.store import Store

    return Store(store_url(where))
