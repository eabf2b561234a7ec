"""A server's side of the fleet: it asks the store what is wanted, and makes its root serve that.

Production alone, or a canary beside it; engines that both the old and the new tree need are lent to both, so nothing
is loaded twice and no request is lost. A store that does not answer leaves everything as it is.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from temper.engines.base import Engine
from temper.engines.shared import Lent, Shared
from temper.engines.swap import Swappable
from temper.errors import TemperError
from temper.fleet.canary import Canary
from temper.fleet.journal import Drawn, Journal
from temper.fleet.observed import Observed
from temper.fleet.rollouts import Rollout
from temper.fleet.store import Store
from temper.fleet.versions import Version
from temper.profile.schema import Profile

log = logging.getLogger(__name__)

POLL_S = 1.0
T = TypeVar("T")

Make = Callable[[Profile], Awaitable[Engine]]
"""Builds the tree of a profile, not started."""
Manifests = Callable[[Profile], Mapping[str, str]]
"""The manifest hashes of a profile's checkpoints; may take long."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the store says that a server should do."""

    production: Version
    rollout: Rollout | None = None
    candidate: Version | None = None


def production_of(url: str, deployment: str, profile: Profile, manifests: Mapping[str, str]) -> Version:
    """What a server that is started with `profile` serves first: that, or what was promoted over it before.

    Raises:
        TemperError: the store does not answer.
    """
    with Store(url) as store:
        base = store.versions.add(profile, manifests, note="served")
        return store.versions.find(store.deployments.begin(deployment, base.id).production)


class Follower:
    """Makes one server's root follow the store."""

    def __init__(
        self,
        root: Swappable,
        store_url: str,
        deployment: str,
        url: str,
        *,
        make: Make,
        manifests: Manifests,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`url` is the server's own address, for people; `changed` is told when the root's tree is another one."""
        self._root = root
        self._store_url = store_url
        self._deployment = deployment
        self._url = url
        self._make = make
        self._manifests = manifests
        self._changed = changed
        self._session = secrets.token_hex(8)
        self._journal = Journal(store_url, self._session, deployment)
        self._thread = ThreadPoolExecutor(1, "temper-fleet")
        self._store: Store | None = None
        self._profile: Profile | None = None
        """What we believe that the root serves; another one there means that a person changed it."""
        self._serving: Version | None = None
        self._canary: Canary | None = None
        self._arms: dict[str, Shared] = {}
        """Engines of the present tree by version id."""
        self._error: tuple[str, str] | None = None
        """(rollout, why its candidate cannot be served)."""

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except TemperError as error:
                    log.warning("the fleet is not followed for now: %s", error)
                except Exception:  # whatever it is, the server must go on serving what it serves
                    log.exception("the fleet is not followed for now")
                await asyncio.sleep(POLL_S)
        finally:
            await self.close()

    async def close(self) -> None:
        """Say goodbye to the store."""
        if self._store is not None:
            store = self._store

            def leave() -> None:
                store.deployments.leave(self._session)
                store.close()

            try:
                await self._in_thread(leave)
            except TemperError as error:
                log.debug("no goodbye: %s", error)
        await asyncio.to_thread(self._journal.close)
        self._thread.shutdown(wait=False)

    async def look(self) -> None:
        """Ask once, do what is wanted, and report.

        Raises:
            TemperError: the store does not answer, or the wanted version cannot be served.
        """
        if self._root.profile is not self._profile:
            await self._begin()
        wanted = await self._in_thread(self._ask)
        try:
            await self._follow(wanted)
        finally:
            await self._report(wanted)

    # -- what is wanted ----------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """We start, or a person changed the profile: that is the base now, unless we serve production already."""
        profile, tree = self._root.profile, self._root.engine
        manifests = await asyncio.to_thread(self._manifests, profile)

        def begin() -> Version:
            store = self._open()
            known = store.versions.add(profile, manifests, note="served")
            try:
                if store.deployments.find(self._deployment).production == known.id:
                    return known
            except TemperError:
                pass  # no such deployment yet
            store.deployments.begin(self._deployment, known.id)
            return known

        self._serving = await self._in_thread(begin)
        self._arms = {self._serving.id: tree.shared} if isinstance(tree, Lent) else {}
        self._canary = None
        await self._put(self._serving, None)

    def _ask(self) -> Wanted:
        store = self._open()
        production = store.versions.find(store.deployments.find(self._deployment).production)
        rollout = store.rollouts.running(self._deployment)
        if rollout is None:
            return Wanted(production)
        return Wanted(production, rollout, store.versions.find(rollout.candidate))

    def _open(self) -> Store:
        if self._store is None:
            self._store = Store(self._store_url)
        return self._store

    async def _follow(self, wanted: Wanted) -> None:
        assert self._serving is not None
        rollout = wanted.rollout
        if rollout is not None and self._error is not None and self._error[0] == rollout.id:
            rollout = None  # it cannot be served here: the controller will see that
        same = wanted.production.id == self._serving.id
        if same and rollout is not None and self._canary is not None and self._canary.rollout.id == rollout.id:
            if self._canary.rollout.share != rollout.share:
                await self._canary.move(rollout)
            return
        if same and rollout is None and self._canary is None:
            return
        try:
            await self._put(wanted.production, wanted if rollout is not None else None)
        except TemperError as error:
            if rollout is None:
                raise
            self._error = (rollout.id, str(error))
            log.error("the candidate cannot be served: %s", error)

    # -- doing it ----------------------------------------------------------------------------------------

    async def _put(self, production: Version, canary: Wanted | None) -> None:
        """Change the root's tree to production, with a canary beside it or without."""
        control = await self._shared(production)
        arms = {production.id: control}
        tree: Engine
        if canary is None:
            drawn = Drawn(production.id)
            tree = Observed(control.lend(), self._journal, lambda request: drawn)
        else:
            assert canary.rollout is not None
            assert canary.candidate is not None
            candidate = arms[canary.candidate.id] = await self._shared(canary.candidate)
            engines = [control.lend(), candidate.lend()]
            tree = Canary(canary.rollout, production, canary.candidate, engines, self._journal)
        if canary is None:
            await self._root.put(production.profile, tree)
        else:
            held = candidate.lend()
            await held.start()  # before the tree does, which would serve without it
            try:
                await self._root.put(production.profile, tree)
            finally:
                await held.stop()
        self._profile = self._root.profile
        self._serving, self._arms = production, arms
        self._canary = tree if isinstance(tree, Canary) else None
        self._changed()

    async def _shared(self, version: Version) -> Shared:
        if version.id in self._arms:
            return self._arms[version.id]
        made = await self._make(version.profile)
        return made.shared if isinstance(made, Lent) else Shared(made)

    async def _report(self, wanted: Wanted) -> None:
        assert self._serving is not None
        serving, canary = self._serving.id, self._canary
        rollout = canary.rollout.id if canary is not None else None
        share = canary.rollout.share if canary is not None else 0.0
        error = None
        if self._error is not None and wanted.rollout is not None and self._error[0] == wanted.rollout.id:
            rollout, error = self._error
        await self._in_thread(
            lambda: self._open().deployments.report(
                self._session, self._deployment, self._url, serving, rollout=rollout, share=share, error=error
            )
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Work with the store in the one thread that its connection belongs to."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
