"""`temper ab`: is B better than A, and does nothing else get worse?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from temper import api
from temper.cli.bench import EXIT_FAILED, EXIT_INCONCLUSIVE, end_servers_on_terminate
from temper.cli.command import command
from temper.cli.loads import load_options, take_load
from temper.cli.output import Output
from temper.profile import store

EXITS = {"pass": 0, "fail": EXIT_FAILED, "inconclusive": EXIT_INCONCLUSIVE}


def _changes(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    return dict(store.parse_override(text) for text in texts)


def _named(kind: Callable[[str], Any], example: str) -> Callable[..., dict[str, Any]]:
    """A click callback that reads repeated `NAME=VALUE`."""

    def read(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
        found = {}
        for text in texts:
            name, _, value = text.partition("=")
            try:
                found[name] = kind(value)
            except ValueError:
                raise click.BadParameter(f"write it like {example}, not '{text}'") from None
        return found

    return read


def _margin(text: str) -> float | None:
    return None if text == "off" else float(text)


@command()
@click.argument("a")
@click.argument("b")
@click.option("--set-a", multiple=True, metavar="FIELD=VALUE", callback=_changes, help="Change a field of A's profile.")
@click.option("--set-b", multiple=True, metavar="FIELD=VALUE", callback=_changes, help="Change a field of B's profile.")
@click.option("--metric", help="What B should be better at.  [default: e2e_ms.p50]")
@click.option(
    "--guardrail",
    "guardrails",
    multiple=True,
    metavar="METRIC=MARGIN|off",
    callback=_named(_margin, "ttft_ms.p50=0.1"),
    help="What must not get worse, and its margin.  [default: failures=0.01, ttft_ms.p50=0.1, output_tokens=0.1]",
)
@click.option(
    "--suite",
    "suites",
    multiple=True,
    metavar="NAME=ITEMS",
    callback=_named(int, "arithmetic=200"),
    help="A quality suite that must not get worse.",
)
@click.option("--units", type=click.IntRange(1), help="Pairs of blocks, or engine starts.  [default: 16, or 8 starts]")
@click.option(
    "--restart/--no-restart",
    default=None,
    help="Start engines anew for each unit.  [default: where the arms differ in more than hot fields]",
)
@click.option("--indifference", type=float, help="An effect that nobody would act on.  [default: 0.02]")
@click.option("--confidence", type=float, help="Of every interval.  [default: 0.95]")
@click.option("--full-length", is_flag=True, help="Every answer to its full length, wherever the model would end it.")
@load_options
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Draw it all into one HTML file.")
def ab(output: Output, a: str, b: str, html: Path | None, **arguments: Any) -> int:
    """Compare B with A: the same requests to both in turns, and a verdict.

    A and B are profiles by any name (preset, file, version), fake:SCRIPT, or the URL of a server, with #MODEL
    where it has several. --requests is how many are in each block. Exits with 0 when B is better and no guardrail
    moved, with 1 when B is worse in any of them, with 3 when that cannot be told.
    """
    load = take_load(arguments)
    requests = load.pop("requests")
    end_servers_on_terminate()
    found = api.ab(
        a,
        b,
        requests=requests,
        load=load,
        changes_a=arguments.pop("set_a"),
        changes_b=arguments.pop("set_b"),
        tell=output.note,
        where=output.place(),
        **arguments,
    )
    if html is not None:
        from temper.measure.ab_page import page

        html.write_text(page(found), "utf-8")
        output.note(f"page: {html}")
    if output.json:
        output.document(**found)
    else:
        _print(output, found)
    return EXITS[found["verdict"]]


def _print(output: Output, found: Mapping[str, Any]) -> None:
    from rich.table import Table

    arms = found["arms"]
    click.echo(f"A: {arms['a']['name']}\nB: {arms['b']['name']}")
    table = Table(box=None, pad_edge=False)
    for heading in ("metric", "A", "B", "effect", f"{found['confidence']:.0%} interval", "claim", "verdict"):
        table.add_column(heading, no_wrap=True)
    table.add_row(*_row(found, "target"))
    for guard in found["guardrails"]:
        table.add_row(*_row(guard, guard["verdict"]))
    output.console.print(table)
    design = found["design"]
    click.echo(f"units: {design['num_units']} ({design['unit']}), {design['requests_per_block']} requests in a block")
    for line in _doubts(arms):
        click.echo(line)
    if found["verdict"] == "inconclusive" and "smallest_effect" in found["evidence"]:
        click.echo(
            f"a test of this size finds {found['evidence']['smallest_effect']:.1%} four times in five; see --units"
        )
    click.echo(f"{found['verdict']}: {found['reason']}")


def _row(judged: Mapping[str, Any], outcome: str) -> tuple[str, ...]:
    evidence = judged["evidence"]
    if "hits_a" in evidence:
        sides = [f"{evidence[f'hits_{side}']}/{evidence[f'total_{side}']}" for side in "ab"]
    else:
        values = [evidence.get(f"mean_{side}", evidence.get(side)) for side in "ab"]
        sides = [f"{value:.4g}" if isinstance(value, float) else "–" for value in values]
    effect = "–" if judged["effect"] is None else f"{judged['effect']:+.1%}"
    interval = "–" if judged["interval"] is None else " … ".join(f"{end:+.1%}" for end in judged["interval"])
    return (judged["metric"], *sides, effect, interval, judged["claim"], outcome)


def _doubts(arms: Mapping[str, Any]) -> list[str]:
    """Each thing that makes a figure doubtful, once."""
    found: dict[str, None] = {}
    for side, arm in arms.items():
        for kind, count in arm["failures"].items():
            found[f"failed: {side.upper()}: {count} × {kind}: {arm['failure_messages'][kind]}"] = None
        for note in arm["notes"]:
            found[f"note: {side.upper()}: {note}"] = None
    return list(found)
