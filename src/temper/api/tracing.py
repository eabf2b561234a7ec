"""The verb that shows where time goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from temper.api.environment import Place, place
from temper.api.profiles import DEFAULT_PROFILE, profile
from temper.api.running import build, fetch_all
from temper.profile.schema import Profile

REQUESTS = 16
"""Asked where nobody says how many: enough for means, and over in a minute."""
REQUESTS_PER_USER = 4


def trace(
    named: str | Path | Profile = DEFAULT_PROFILE,
    *,
    url: str | None = None,
    model: str | None = None,
    in_process: bool = False,
    load: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] = lambda text: None,
    where: Place | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Where the time of a run goes, what of the machine it uses, and what would help; see `measure.trace`.

    A server of our own is started on the profile, asked, and ended; with `in_process` the engine is asked without
    HTTP; with `url` a running server is asked, which tells its inside to whoever has its admin key
    (TEMPER_ADMIN_KEY). `load` holds fields of `measure.workload.options.Load`.

    Raises:
        NotFound, ProfileError, Invalid: a name, a profile, an address or a load that cannot be.
        EngineFailure: what is to be traced does not start, or does not answer.
    """
    from temper.measure.trace import opening, run
    from temper.measure.workload.options import Load

    here = where or place()
    wanted = dict(load or {})
    if wanted.get("requests") is None and wanted.get("workload") is None:
        wanted["requests"] = max(REQUESTS, REQUESTS_PER_USER * max(wanted.get("concurrency") or (1,)))
    variants = Load(**wanted).variants()
    if url is not None:
        opened = opening.at_url(url, model, here.api_key, here.admin_key)
    else:
        chosen = profile(named, **overrides)
        fetch_all(chosen, here)
        opened = (
            opening.in_process(build(chosen, here))
            if in_process
            else opening.own_server(chosen, here.api_key, here.home)
        )
    return asyncio.run(run.trace(opened, variants, tell))
