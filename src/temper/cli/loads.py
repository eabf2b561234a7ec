"""Command-line options that describe a load: which requests, how many, when. `bench` and `trace` share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from temper.measure.workload.schema import preset_names

Function = Callable[..., Any]

NAMES = ("workload", "concurrency", "rate", "requests", "warmup", "seed", "input_tokens", "output_tokens")


def list_of(kind: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], tuple[Any, ...]]:
    """A click callback that reads `1,8,32`."""

    def read(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[Any, ...]:
        try:
            return tuple(kind(part.strip()) for part in (text or "").split(",") if part.strip())
        except ValueError:
            raise click.BadParameter(f"write numbers like 1,8,32, not '{text}'") from None

    return read


_OPTIONS = (
    click.option("--workload", help=f"A .toml file, or one of {', '.join(preset_names())}."),
    click.option("--concurrency", callback=list_of(int), help="Closed loop: users at once; several as 1,8,32."),
    click.option("--rate", callback=list_of(float), help="Open loop: requests per second, Poisson; several as 1,2,4."),
    click.option(
        "--requests", type=click.IntRange(1), help="How many requests are measured at each load, in each round."
    ),
    click.option("--input-tokens", help="Length of prompts: 128, 64-512, normal:MEAN,SD or lognormal:MEDIAN,SIGMA."),
    click.option("--output-tokens", help="Length of answers, written the same way."),
    click.option("--warmup", type=click.IntRange(0), help="Requests sent before and not measured."),
    click.option("--seed", type=int, help="Same seed, same prompts, lengths and arrival times."),
)


def load_options(function: Function) -> Function:
    """Decorator: the options of a load."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def take_load(arguments: dict[str, Any]) -> dict[str, Any]:
    """Take the load's options out of a command's arguments: fields of `measure.workload.options.Load`."""
    return {name: arguments.pop(name) for name in NAMES}
