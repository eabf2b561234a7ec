"""`temper advise`: which way to a cheaper model, with the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from temper import api
from temper.cli.command import command
from temper.cli.output import Output

EXIT_FAILED = 1
ABOVE_0 = click.FloatRange(0, min_open=True)


@command()
@click.argument("profile", default=api.DEFAULT_PROFILE)
@click.option("--price-per-hour", type=ABOVE_0, required=True, help="Of the machine that serves.")
@click.option("--tokens-per-month", type=ABOVE_0, required=True, help="That are generated.")
@click.option("--tokens-per-s", type=ABOVE_0, help="Of the whole machine, from temper bench.  [default: reckoned]")
@click.option("--horizon-months", type=ABOVE_0, help="Over which costs are summed.  [default: 12]")
@click.option("--budget", type=click.FloatRange(0), help="Most that may be spent before anything is saved.")
@click.option("--quality", type=click.FloatRange(0, 1), help="Of what is run now, from temper eval.")
@click.option("--quality-floor", type=click.FloatRange(0, 1), help="Least that will do.")
@click.option("--quantized-quality", type=click.FloatRange(0, 1), help="Measured on the quantized model.")
@click.option("--student-quality", type=click.FloatRange(0, 1), help="Of the smaller model after fine-tuning.")
@click.option("--student-parameters", type=ABOVE_0, help="Of the smaller model.  [default: a quarter]")
@click.option("--bits", type=click.IntRange(2, 8), help="Of a quantized weight.  [default: 4]")
@click.option("--memory-bytes", type=ABOVE_0, help="That weights may take.")
@click.option("--training-tokens", type=ABOVE_0, help="Seen in fine-tuning, epochs included.  [default: 20e6]")
@click.option("--training-tflops", type=ABOVE_0, help="Effective, of the machine that trains.  [default: 50]")
@click.option("--training-price-per-hour", type=click.FloatRange(0), help="Of that machine.  [default: 1]")
@click.option("--data-cost", type=click.FloatRange(0), help="Of the training data.  [default: 0]")
@click.option("--parameters", type=ABOVE_0, help="Of the model now.  [default: the checkpoint's]")
@click.option("--weight-bytes", type=ABOVE_0, help="Of the model now.  [default: the checkpoint's]")
def advise(output: Output, profile: str, **arguments: Any) -> int:
    """Advise on the route to a cheaper model: quantize, fine-tune, or both.

    Every figure is measured, given or named as assumed. Exits with 1 when no route holds.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    found = api.advise(profile, where=output.place(), **given)
    if output.json:
        output.document(**found)
    else:
        _print(output, found)
    return 0 if found["advice"] is not None else EXIT_FAILED


def _print(output: Output, found: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("route", "before", "a month", "in all", "cheaper from month", "quality", "weights GB", "tokens/s"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "route" else "right")
    for route in found["routes"]:
        table.add_row(
            route["route"],
            *(f"{route[name]:.4g}" for name in ("upfront", "monthly", "total")),
            "–" if route["break_even_months"] is None else f"{route['break_even_months']:.2g}",
            "–" if route["quality"] is None else f"{route['quality']:.3f}",
            f"{route['weight_bytes'] / 1e9:.3g}",
            f"{route['tokens_per_s']:.4g}",
        )
    output.console.print(table)
    for route in found["routes"]:
        click.echo(f"\n{route['route']}")
        for line in (*route["arithmetic"], *(f"cannot be taken: {reason}" for reason in route["against"])):
            click.echo(f"  {line}")
    click.echo("\nassumed")
    for line in found["assumed"]:
        click.echo(f"  {line}")
    click.echo(f"\nadvice: {found['advice'] or 'none'}: {found['reason']}")
