"""The page of rollouts: what moves, how sure one is by now, what happened, and where versions came from.

Reads the fleet's store and nothing else. The frame at `/rollouts` is open; what is in it comes from `/dashboard/…`,
which the server's door guards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from temper.dashboard import rollout_chart
from temper.dashboard.pages import ROLLOUTS
from temper.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from temper.fleet.store import Store

Render = Callable[..., HTMLResponse]


def add_pages(router: APIRouter, render: Render, home: Path | None, store_url: str | None = None) -> None:
    """Put the page and its pieces on a router. The store is at `store_url`, or in a file below `home`."""

    @router.get(ROLLOUTS.path)
    async def frame(rollout: str = "") -> HTMLResponse:
        return render("rollouts.html", page=ROLLOUTS, rollout=rollout)

    @router.get("/dashboard/rollouts")
    def listed() -> HTMLResponse:
        with _store(home, store_url) as store:
            return render("rollouts_list.html", **_listed(store))

    @router.get("/dashboard/rollouts/{name}")
    def one(name: str) -> HTMLResponse:
        with _store(home, store_url) as store:
            if store is None:
                raise NotFound("this server has no rollouts", param="rollout")
            return render("rollout.html", **described(store, name))


def described(store: Store, name: str) -> dict[str, Any]:
    """What the template of one rollout needs, as plain data."""
    from temper.fleet.status import document

    found = store.rollouts.find(name)
    lineage = store.versions.lineage(found.candidate)
    return {
        "rollout": document(store, found),
        "looks": store.rollouts.looks(found.id),
        "events": [{"when": _time(event.at), "text": event.text} for event in store.history(rollout=found.id)],
        "lineage": [
            {"short": one.short, "stage": one.stage, "origin": f"{one.origin} {one.source}".strip(), "note": one.note}
            for one in lineage
        ],
    } | _charts(store, found.id)


def _charts(store: Store, id: str) -> dict[str, Any]:
    plan = store.rollouts.find(id).plan
    looks = store.rollouts.looks(id)
    watched = {str(metric): guardrail.tolerance for metric, guardrail in plan.watched.items()}
    metrics = dict.fromkeys([*([plan.target] if plan.target else []), *watched])
    drawn = {str(metric): rollout_chart.narrowing(looks, str(metric), watched.get(str(metric))) for metric in metrics}
    return {"charts": {metric: chart for metric, chart in drawn.items() if chart}}


def standalone(store: Store, name: str) -> str:
    """A rollout as one HTML file without script or network.

    Raises:
        NotFound: there is no such rollout.
    """
    environment = Environment(
        loader=PackageLoader("temper.dashboard"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    files = resources.files("temper.dashboard") / "static" / "css"
    style = "".join((files / file).read_text("utf-8") for file in ("base.css", "studies.css", "rollouts.css"))
    inner = environment.get_template("rollout.html").render(**described(store, name))
    # No user text is in the style sheets, and the inner page escaped its own.
    page = environment.get_template("one_file.html")
    return page.render(title="temper rollout", style=Markup(style), inner=Markup(inner))


@contextmanager
def _store(home: Path | None, url: str | None) -> Iterator[Store | None]:
    """The store, None where nothing was ever kept: looking makes no file."""
    from temper.fleet.store import FILE, Store, url_of

    if url is None and home is not None and (home / FILE).exists():
        url = url_of(home)
    if url is None:
        yield None
        return
    with Store(url) as store:
        yield store


def _listed(store: Store | None) -> Mapping[str, Any]:
    if store is None:
        return {"rollouts": [], "turns": [], "versions": []}
    return {
        "rollouts": [
            {
                "id": one.id,
                "when": _time(one.created_at),
                "deployment": one.deployment,
                "candidate": one.candidate[:12],
                "state": one.state,
                "share": one.share,
                "units": one.judged.get("num_units", 0),
                "reason": one.reason,
            }
            for one in store.rollouts.all()
        ],
        "turns": [
            {
                "when": _time(turn["started_at"]),
                "outcome": turn["outcome"],
                "prose": " ".join(turn.get("sentences", ())),
            }
            for turn in store.turns.all(most=10)
        ],
        "versions": [
            {
                "short": one.short,
                "stage": one.stage,
                "origin": f"{one.origin} {one.source}".strip(),
                "parent": (one.parent or "")[:12],
                "when": _time(one.created_at),
                "note": one.note,
            }
            for one in store.versions.all()[:50]
        ],
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
