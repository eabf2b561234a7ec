"""A profile over HTTP: the engine tree, the API, the page and the place, put together."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.api.checkpoints import Progress
from temper.api.environment import Place, place
from temper.api.profiles import DEFAULT_PROFILE, deployment_name, profile
from temper.api.running import build, fetch_all
from temper.api.spans import exported
from temper.api.store import store_exists, store_url
from temper.api.versions import manifests
from temper.engines import ahead
from temper.errors import Invalid, TemperError
from temper.profile.schema import Profile

if TYPE_CHECKING:
    from temper.engines.base import Engine
    from temper.engines.swap import Make, Swappable

log = logging.getLogger(__name__)

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
DEFAULT_DRAIN_S = 30.0
STORE_POLL_S = 1.0
LOG_LEVELS = ("debug", "info", "warning", "error")


def serve(
    named: str | Path | Profile = DEFAULT_PROFILE,
    *,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    api_keys: Sequence[str] = (),
    admin_keys: Sequence[str] = (),
    drain_s: float = DEFAULT_DRAIN_S,
    log_level: str | None = None,
    on_ready: Callable[[str, list[str]], None] | None = None,
    progress: Progress | None = None,
    deployment: str | None = None,
    loop: bool = False,
    where: Place | None = None,
    **overrides: Any,
) -> None:
    """Serve a profile over HTTP until SIGTERM or SIGINT, then let running answers end for `drain_s` seconds.

    `on_ready` is told the URL and the model names once requests are taken. With no `api_keys`,
    TEMPER_API_KEY is the key where it is set; otherwise the API is open to whoever reaches the port. With
    `admin_keys` (or TEMPER_ADMIN_KEY) `POST /admin/profile` changes the profile while requests run; SIGHUP reads
    `named` again and changes to what it says now.

    The server follows the place's store, once there is one, as part of `deployment` (by default named after the
    profile): versions promoted over the profile are served in its place, and rollouts move its traffic. `loop` starts a
    controller beside it.

    Raises:
        NotFound, ProfileError, FetchFailed, CheckpointError: as `load`.
        Invalid: the address cannot be bound.
    """
    from temper.engines.shared import Shared
    from temper.engines.swap import Swappable

    here = where or place()
    _log_to_stderr(log_level or here.log_level)
    chosen = profile(named, where=here, **overrides)
    fetch_all(chosen, here, progress)
    group = deployment or deployment_name(named)
    if store_exists(here):
        chosen = _production(chosen, group, here)

    async def make(wanted: Profile) -> Engine:
        await asyncio.to_thread(fetch_all, wanted, here)
        return Shared(build(wanted, here)).lend()

    root = Swappable(chosen, Shared(build(chosen, here)).lend(), make)
    root.prepare()  # workers load their models while the server's modules are imported
    ahead.give_up()
    gc.disable()  # what imports make is no garbage
    from temper import server
    from temper.dashboard.router import OPEN_PATHS, create_router
    from temper.measure.quality.ratings import FILE as RATINGS_FILE
    from temper.server.feedback import create_router as create_feedback_router

    feedback = create_feedback_router(here.home / RATINGS_FILE)

    gc.enable()
    keys = tuple(api_keys) or ((here.api_key,) if here.api_key else ())
    admins = tuple(admin_keys) or ((here.admin_key,) if here.admin_key else ())
    settings = server.ServerSettings(api_keys=keys, admin_keys=admins)
    settings = replace(settings, open_paths=settings.open_paths + OPEN_PATHS)
    address: asyncio.Queue[str] = asyncio.Queue()

    async def follow() -> None:
        await _follow(root, group, await address.get(), make, app.state.temper.rename, here)

    exporting = ExitStack()
    app = server.create_app(
        root,
        extensions=[create_router(home=here.home, store_url=here.store_url), feedback],
        companions=[follow],
        settings=settings,
        tracer=exporting.enter_context(exported(here)),
    )
    if not isinstance(named, Profile):
        app.state.temper.reread = lambda: profile(named, where=here, **overrides)

    def ready(url: str) -> None:
        gc.freeze()  # modules and app stay: a later search for garbage, during which every stream waits, passes them by
        address.put_nowait(url)
        if on_ready is not None:
            on_ready(url, list(app.state.temper.engines))

    try:
        with exporting, _controller(here) if loop else nullcontext():
            server.serve(app, host, port, drain_s, on_ready=ready)
    finally:
        asyncio.run(root.stop())  # what was prepared goes, also when it was never served


def _production(base: Profile, deployment: str, here: Place) -> Profile:
    """What was promoted over `base`; the base itself where nothing was, or the store does not say."""
    from temper.fleet.serving import production_of

    try:
        return production_of(store_url(here), deployment, base, manifests(base, here)).profile
    except TemperError as error:
        log.warning("served as given, for the store was not asked: %s", error)
        return base


async def _follow(
    root: Swappable, deployment: str, url: str, make: Make, changed: Callable[[], None], here: Place
) -> None:
    """Follow the store from the moment there is one; before that, nothing of the fleet is loaded."""
    while not store_exists(here):
        await asyncio.sleep(STORE_POLL_S)
    from temper.fleet.serving import Follower

    await Follower(
        root,
        store_url(here),
        deployment,
        url,
        make=make,
        manifests=lambda profile: manifests(profile, here),
        changed=changed,
    ).run()


@contextmanager
def _controller(here: Place) -> Iterator[None]:
    """A controller in a process of its own while this lasts."""
    command = [sys.executable, "-m", "temper.cli", "loop", "run", "--home", str(here.home)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _log_to_stderr(level: str) -> None:
    """One line a record on standard error.

    Raises:
        Invalid: no such level.
    """
    if level not in LOG_LEVELS:
        raise Invalid(f"a log level is one of {', '.join(LOG_LEVELS)}, but is '{level}'", param="log_level")
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
