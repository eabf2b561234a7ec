"""How a verdict against the recorded history is shown to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from temper.cli.output import Output


def print_regression(output: Output, judged: Mapping[str, Any]) -> None:
    """The metrics that did not pass, what makes it doubtful, and the verdict."""
    from rich.table import Table

    open_ = [one for one in judged["verdicts"] if one["verdict"] != "pass"]
    table = Table(box=None, pad_edge=False, title="Against the history", title_justify="left")
    for heading in ("engine", "load", "metric", "effect", "interval", "sessions", "verdict"):
        table.add_column(heading, no_wrap=True)
    for one in open_:
        table.add_row(
            one["engine"],
            load_text(one),
            one["metric"],
            "–" if one["effect"] is None else f"{one['effect']:+.1%}",
            "–" if one["interval"] is None else " … ".join(f"{end:+.1%}" for end in one["interval"]),
            str(one["evidence"].get("num_sessions", "")),
            one["verdict"],
        )
    if open_:
        output.console.print(table)
    for note in judged["notes"]:
        click.echo(f"note: {note}")
    click.echo(f"against {len(judged['baseline'])} recorded session(s): {judged['verdict']}: {judged['reason']}")


def load_text(run: Mapping[str, Any]) -> str:
    """The load of a run in words."""
    if run.get("concurrency") is not None:
        return f"{run['concurrency']} at once"
    return f"{run['rate']:g}/s" if run.get("rate") is not None else "as recorded"
