"""`temper recipe`: from a base model to a smaller one that was taught, examined and canaried, stage by stage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from temper import api
from temper.cli.bench import EXIT_INCONCLUSIVE
from temper.cli.command import command
from temper.cli.loads import list_of
from temper.cli.output import Output

UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def _seconds(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|m|h)", text.strip())
    if found is None:
        raise click.BadParameter(f"write it like 90min, 1.5h or 300s, not '{text}'")
    return float(found[1]) * UNITS[found[2]]


@command()
@click.argument("recipe", required=False)
@click.argument("changes", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the stages.  [default: RECIPE]"
)
@click.option("--stages", callback=list_of(str), default="", help="These alone, as a,b,c.  [default: all]")
@click.option("--budget", "budget_s", callback=_seconds, help="Time after which it stops, to go on when called again.")
def recipe(
    output: Output, recipe: str | None, changes: tuple[str, ...], out: Path | None, stages: tuple[str, ...],
    budget_s: float | None,
) -> int:  # fmt: skip
    """Run an end-to-end RECIPE: teach, distil, quantize, examine, canary.

    RECIPE is a name (without one, they are listed) or a TOML file; its fields are changed by KEY=VALUE. Each stage
    leaves a folder, and the same command goes on where it stopped (docs/recipes.md). Exits with 3 while some are left.
    """
    if recipe is None:
        return _list(output)
    folder = out or Path(Path(recipe).stem)
    with output.progress() as progress:
        found = api.course(
            recipe, folder, changes, stages=stages, budget_s=budget_s, progress=progress, say=output.note,
            where=output.place(),
        )  # fmt: skip
    if output.json:
        output.document(**found)
    else:
        _print(output, found)
    return EXIT_INCONCLUSIVE if found["left"] and not stages else 0


def _list(output: Output) -> int:
    known = api.courses()
    if output.json:
        output.document(recipes=[{"name": name, "about": about} for name, about in known.items()])
    else:
        for name, about in known.items():
            click.echo(f"{name:18}{about}")
    return 0


def _print(output: Output, found: Mapping[str, Any]) -> None:
    for stage in found["done"]:
        click.echo(f"{stage:16}{found['seconds'][stage] / 60:6.1f} min")
    if found["table"] is not None:
        _print_table(output, found["table"])
    results = found["results"]
    if "cost" in results:
        cost = results["cost"]
        sides = [cost[name]["cpu_s_per_correct_answer"] for name in ("teach", "result")]
        shown = ["–" if side is None else f"{side:.3g} s" for side in sides]
        click.echo(f"CPU time for each right answer: {shown[0]} taught, {shown[1]} result")
    if "compare" in results:
        click.echo(f"ab: {results['compare']['verdict']}: {results['compare']['reason']}")
    if "canary" in results:
        click.echo(f"canary: {results['canary']['state']}: {results['canary']['reason']}")
    if found["left"]:
        click.echo(f"left: {', '.join(found['left'])} ({found['reason']})")


def _print_table(output: Output, found: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("suite", "model", "right", "interval", "gain over the base", "interval"):
        table.add_column(heading, no_wrap=True)
    for row in found["rows"]:
        table.add_row(row["suite"], row["model"], _share(row["value"]), _between(row["interval"], ""),
                      _share(row.get("gain"), "+"), _between(row.get("gain_interval"), "+"))  # fmt: skip
    output.console.print(table)
    for suite, kept in found["kept"].items():
        if kept is not None:
            click.echo(f"{suite}: {kept['share']:.0%} of the taught gain is kept ({_between(kept['interval'], '')})")


def _share(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.1%}"


def _between(interval: Any, sign: str) -> str:
    return "" if interval is None else " … ".join(f"{end:{sign}.1%}" for end in interval)
