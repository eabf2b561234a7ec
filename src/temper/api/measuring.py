"""The verbs that measure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from temper.api.checkpoints import fetch
from temper.api.environment import Place, place
from temper.api.profiles import DEFAULT_PROFILE, profile
from temper.api.running import build, fetch_all
from temper.profile import store
from temper.profile.schema import Profile


def bench(
    named: str | Path | Profile = DEFAULT_PROFILE,
    *,
    url: str | None = None,
    model: str | None = None,
    engines: Sequence[str] = (),
    peers: Path | None = None,
    load: Mapping[str, Any] | None = None,
    rounds: int | None = None,
    processes: int = 1,
    record: bool = False,
    compare: bool = False,
    margin: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
    where: Place | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Measure a profile in this process, the server at `url`, or several `engines` in turns; see `measure.bench`.

    `load` holds fields of `measure.workload.options.Load`: `{"concurrency": (1, 8), "requests": 300}`. `peers` is the
    folder in which `benchmarks/peers/*.sh` set other engines up.

    `record` keeps the result in the history below `home` (`recorded`: its number); `compare` adds `regression`, the
    verdict against what was recorded of the same subject under the same load, at most `margin` worse.

    Raises:
        NotFound, ProfileError, Invalid: a name, a profile, an address or a load that cannot be.
        EngineFailure: what is to be measured does not answer.
    """
    from temper.measure import subjects
    from temper.measure.workload.options import Load

    here = where or place()
    variants = Load(**(load or {})).variants()
    chosen: Profile | None = None
    subject = f"{url}#{model}" if model else str(url)
    if url is not None:
        opened = subjects.at_url(url, model, here.api_key)
    else:
        chosen = profile(named, where=here, **overrides)
        subject = named.engine.kind if isinstance(named, Profile) else str(named)
        if engines:
            subject = f"{subject}: {', '.join(engines)}"
            folder = peers or here.home / "peers"
            opened = subjects.side_by_side(engines, chosen, folder, lambda source: fetch(source, here, None).path)
        else:
            fetch_all(chosen, here)
            opened = subjects.in_process(build(chosen, here))
    found = asyncio.run(subjects.measure(opened, variants, rounds or (4 if engines else 1), processes, tell))
    if record or compare:
        found |= _against_history(found, subject, chosen, here, record, compare, margin)
    return found


def _against_history(
    found: Mapping[str, Any], subject: str, chosen: Profile | None, here: Place, record: bool, compare: bool,
    margin: float | None,
) -> dict[str, Any]:  # fmt: skip
    """What the history says of a result, and the result's own place in it."""
    from temper import __version__
    from temper.api.versions import manifests
    from temper.machine import describe
    from temper.measure import regression
    from temper.measure.history import History, Session

    version = None if chosen is None else store.version_id(chosen, manifests(chosen, here))
    session = Session(subject, version, found["workload"], describe(), found["runs"], __version__)
    told: dict[str, Any] = {}
    with History(here.home / "benchmarks.db") as history:
        if compare:
            allowed = regression.MARGIN if margin is None else margin
            told["regression"] = regression.judge(session, history.like(session), allowed)
        if record:
            told["recorded"] = history.record(session)
    return told
