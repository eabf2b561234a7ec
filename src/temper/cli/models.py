"""`temper models`: what is known by name, and what is here."""

from __future__ import annotations

from dataclasses import asdict

from temper import api
from temper.cli.command import command
from temper.cli.output import Output


@command()
def models(output: Output) -> None:
    """List the models that are known by name, or here already."""
    found = api.models(where=output.place())
    if output.json:
        output.document(models=[asdict(model) for model in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("MODEL", "HERE", "SIZE", "LICENCE", "WHAT IT IS"):
        table.add_column(heading, justify="right" if heading == "SIZE" else "left")
    for model in found:
        size = f"{model.num_bytes / 1e6:,.0f} MB" if model.num_bytes else ""
        table.add_row(model.name, "yes" if model.here else "no", size, model.licence, model.about)
    output.console.print(table)
