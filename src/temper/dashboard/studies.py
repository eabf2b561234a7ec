"""The page of studies: a list, one study whole, and the same as one file.

Reads the tuner's ledger and nothing else, and imports it when somebody looks: a server starts without it. The frame
at `/studies` is open; what is in it comes from `/dashboard/…`, which the server's door guards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from temper.dashboard.pages import STUDIES
from temper.errors import NotFound

if TYPE_CHECKING:
    from temper.tuner.ledger import Entry, Ledger

Render = Callable[..., HTMLResponse]

FIGURES: tuple[tuple[str, str, float], ...] = (
    ("output_tokens_per_s", "tokens/s", 1.0),
    ("requests_per_s", "answers/s", 1.0),
    ("goodput_per_s", "goodput/s", 1.0),
    ("ttft_ms.p50", "TTFT P50, ms", 1.0),
    ("ttft_ms.p90", "TTFT P90, ms", 1.0),
    ("itl_ms.p50", "ITL P50, ms", 1.0),
    ("e2e_ms.p50", "E2E P50, ms", 1.0),
    ("e2e_ms.p99", "E2E P99, ms", 1.0),
    ("rss_bytes", "memory, MB", 1e-6),
    ("cpu_s_per_request", "CPU s/answer", 1.0),
    ("cost_per_million_tokens", "price of a million tokens", 1.0),
    ("quality", "quality", 1.0),
    ("answer_tokens", "tokens an answer", 1.0),
)
"""What incumbent and winner are compared by: figure, words, scale."""


def add_pages(router: APIRouter, render: Render, home: Path | None) -> None:
    """Put the page and its pieces on a router; `home` is where the ledger lies, None: nowhere."""

    @router.get(STUDIES.path)
    async def frame(request: Request, study: str = "") -> HTMLResponse:
        return render("studies.html", page=STUDIES, study=study)

    @router.get("/dashboard/studies")
    def listed() -> HTMLResponse:
        return render("studies_list.html", studies=[_line(entry) for entry in _entries(home)])

    @router.get("/dashboard/studies/{name}")
    def one(name: str) -> HTMLResponse:
        if home is None:
            raise NotFound("this server keeps no studies", param="study")
        ledger = _ledger(home)
        try:
            entry = ledger.find(name)
            trials = ledger.trials(entry.id)
        finally:
            ledger.close()
        return render("study.html", **_shown(entry.document or {}, trials, entry))


def standalone(document: Mapping[str, Any]) -> str:
    """A finished study as one HTML file without script or network."""
    environment = Environment(
        loader=PackageLoader("temper.dashboard"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    files = resources.files("temper.dashboard") / "static" / "css"
    style = "".join((files / name).read_text("utf-8") for name in ("base.css", "studies.css"))
    inner = environment.get_template("study.html").render(**_shown(document, [], None))
    # No user text is in the style sheets, and the inner page escaped its own.
    page = environment.get_template("one_file.html")
    return page.render(title="temper tune", style=Markup(style), inner=Markup(inner))


def _ledger(home: Path) -> Ledger:
    from temper.tuner.ledger import FILE, Ledger

    return Ledger(home / FILE, create=False)


def _entries(home: Path | None) -> list[Entry]:
    if home is None:
        return []
    try:
        ledger = _ledger(home)
    except NotFound:
        return []
    try:
        return ledger.studies()
    finally:
        ledger.close()


def _line(entry: Entry) -> dict[str, Any]:
    found = entry.document or {}
    return {
        "id": entry.id,
        "when": datetime.fromtimestamp(entry.created_s, UTC).strftime("%Y-%m-%d %H:%M"),
        "workload": entry.plan.get("workload", {}).get("name", ""),
        "objective": entry.plan.get("objective") or "throughput",
        "state": entry.state,
        "verdict": found.get("verdict", ""),
        "effect": found.get("effect"),
    }


def _shown(document: Mapping[str, Any], trials: list[dict[str, Any]], entry: Entry | None) -> dict[str, Any]:
    """What the template of one study needs. A study that still runs has its trials and no verdict."""
    running = entry is not None and entry.state == "running"
    if "verdict" not in document:
        return {"study": None, "entry": entry, "running": running, "trials": trials, "charts": {}, "figures": []}
    from temper.dashboard import study_charts

    charts = {
        "history": study_charts.history(document),
        "pareto": study_charts.pareto(document),
        "importance": study_charts.importance(document),
        "parallel": study_charts.parallel(document),
        "finalists": study_charts.finalists(document),
    }
    return {
        "study": document,
        "entry": entry,
        "running": running,
        "trials": document["trials"],
        "charts": charts,
        "figures": _figures(document),
    }


def _figures(document: Mapping[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """(words, incumbent, winner) from the search's blocks; what is claimed stands in the verdict."""
    by_number = {trial["number"]: trial["figures"] for trial in document["trials"]}
    side = document["winner"] or next(iter(document["evidence"]["finalists"]), None)
    before, after = by_number.get(0, {}), by_number.get(side["trial"], {}) if side is not None else {}
    return [
        (
            words,
            None if name not in before else scale * before[name],
            None if name not in after else scale * after[name],
        )
        for name, words, scale in FIGURES
        if name in before or name in after
    ]
