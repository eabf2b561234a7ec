"""The dashboard as one FastAPI router, mounted by the server as an extension.

It renders pages and hands out figures. It knows engines only by the seam (capabilities, health) and
never calls `generate`: the playground is a client of the public API.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from temper.dashboard import rollouts, studies
from temper.dashboard.assets import load_assets
from temper.dashboard.history import History
from temper.dashboard.pages import PAGES, PLAYGROUND, Page
from temper.profile.presets import TaskPreset, task_preset, task_presets
from temper.server import Served, served

OPEN_PATHS = ("/", "/studies", "/rollouts", "/favicon.ico", "/dashboard/static/*")
"""What a browser must get before it can ask its person for a key: pages and their files. They hold nothing
of this server; figures and answers come from other paths, which the server's door guards."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""No inline script or style, and nothing from elsewhere: what a model writes cannot run or phone home."""


def create_router(
    *, pages: Sequence[Page] = PAGES, home: Path | None = None, store_url: str | None = None
) -> APIRouter:
    """The pages, their static files, and the data they poll, for `server.create_app(extensions=…)`.

    `home` is the folder of state, where studies are looked up and ratings kept; None: this server has neither.
    Rollouts are in the store at `store_url`, or in a file below `home`.
    While the application runs, the server's live figures are sampled once a second.
    """
    assets = load_assets()
    templates = Environment(
        loader=PackageLoader("temper.dashboard"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    secured = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    router = APIRouter(lifespan=_sampling, include_in_schema=False)

    def render(template: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(templates.get_template(template).render(pages=pages, **values), headers=secured)

    @router.get(PLAYGROUND.path)
    async def playground(request: Request) -> HTMLResponse:
        presets: dict[str, TaskPreset] = {name: task_preset(name) for name in task_presets()}
        thinks = any(engine.capabilities().thinking for engine in served(request).distinct())
        return render("playground.html", page=PLAYGROUND, presets=presets, thinks=thinks, rates=home is not None)

    @router.get("/dashboard/status")
    async def status(request: Request) -> HTMLResponse:
        state, about = _overall(served(request))
        return render("status.html", state=state, about=about)

    @router.get("/dashboard/live")
    async def live(request: Request, after: Annotated[int, Query(ge=0)] = 0) -> JSONResponse:
        # Polled rather than streamed: an endless response would hold up a graceful shutdown, and one
        # small request a second costs less than a connection kept for each open tab.
        history: History = request.state.dashboard_history
        body = {"interval_s": history.interval_s, "keep": history.keep, "samples": history.after(after)}
        return JSONResponse(body, headers=secured)

    @router.get("/dashboard/static/{path:path}")
    async def static(path: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
        asset = assets.get(path)
        if asset is None:
            raise HTTPException(404, f"the dashboard has no static file '{path}'")
        headers = {**secured, "ETag": asset.etag, "Cache-Control": "no-cache"}
        if if_none_match == asset.etag:
            return Response(status_code=304, headers=headers)
        return Response(asset.body, media_type=asset.media_type, headers=headers)

    studies.add_pages(router, render, home)
    rollouts.add_pages(router, render, home, store_url)

    @router.get("/favicon.ico")
    async def favicon() -> Response:
        return Response(status_code=307, headers={"Location": "/dashboard/static/icon.svg"})

    return router


@contextlib.asynccontextmanager
async def _sampling(app: FastAPI) -> AsyncIterator[Mapping[str, History]]:
    state: Served = app.state.temper
    history = History(state.telemetry.live)
    sampler = asyncio.create_task(history.run(), name="dashboard-history")
    try:
        yield {"dashboard_history": history}
    finally:
        sampler.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampler


def _overall(state: Served) -> tuple[str, str]:
    """(`ready`, `waiting` or `down`; the models, or why they are not ready)."""
    health = state.health()
    if state.draining:
        return "waiting", "shutting down"
    unwell = {name: found for name, found in health.items() if not found.ready}
    if not unwell:
        return "ready", ", ".join(health)
    about = "; ".join(f"{name}: {found.reason}" for name, found in unwell.items())
    return ("waiting" if all(found.alive for found in unwell.values()) else "down"), about
