"""`temper tune`: a study, from a workload and a wish to a proposal with its proof."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from temper import api
from temper.cli.command import command
from temper.cli.options import overrides, setting_options
from temper.cli.output import Output
from temper.errors import Invalid
from temper.profile import store

if TYPE_CHECKING:
    from temper.tuner.search import Progress

EXITS = {"pass": 0, "fail": 1, "inconclusive": 3}


@command()
@click.argument("workload", required=False)
@click.option("--profile", default=api.DEFAULT_PROFILE, show_default=True, help="What serves now: the incumbent.")
@click.option("--also", multiple=True, metavar="PROFILE", help="A further engine to choose from. May be repeated.")
@click.option(
    "--objective",
    default="",
    help="What shall get better, and limits: 'p99 -20 %', 'throughput, ttft p90 < 300 ms', 'cost per correct answer'. "
    " [default: throughput]",
)
@click.option("--budget", default=api.DEFAULT_BUDGET, show_default=True, help="Time or trials: 30min, 2h, '40 trials'.")
@click.option("--slo/--no-slo", default=True, help="Hold to the limits of the workload and of the profile.")
@click.option(
    "--suite",
    default="auto",
    show_default=True,
    help="The quality suite that guards answers, as `temper eval` names it, or none; auto: perplexity where possible.",
)
@click.option("--quality-margin", type=click.FloatRange(0), help="How much worse it may score.  [default: the suite's]")
@click.option(
    "--knob", "knobs", multiple=True, metavar="FIELD", help="Vary this field alone, or kv.*. May be repeated."
)
@click.option("--without", multiple=True, metavar="FIELD", help="Leave this field as it is. May be repeated.")
@click.option("--ladder", "ladders", multiple=True, metavar="FIELD=A,B,C", help="The values that a field may take.")
@click.option("--seed", default=0, show_default=True, type=int, help="Same seed, same proposals, prompts and items.")
@click.option("--units", type=click.IntRange(3), help="Engine starts on each side that confirm a finalist.")
@click.option("--price-per-hour", default=1.0, show_default=True, type=click.FloatRange(0, min_open=True),
              help="Of this machine, for objectives about cost.")  # fmt: skip
@click.option("--resume", metavar="STUDY", help="Go on with a study: its id, the beginning of it, or 'last'.")
@click.option(
    "--rehearse",
    type=click.Path(dir_okay=False, path_type=Path),
    help="No engine: a recording (.jsonl) or an invented machine (.toml), see docs/tuning.md.",
)
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the winner as a profile file.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the study's page into one file.")
@setting_options
def tune(
    output: Output,
    workload: str | None,
    profile: str,
    also: tuple[str, ...],
    knobs: tuple[str, ...],
    ladders: tuple[str, ...],
    units: int | None,
    save: Path | None,
    html: Path | None,
    **arguments: Any,
) -> int:
    """Search for a better profile under a WORKLOAD, and prove it.

    WORKLOAD is a preset or a .toml file. Exits with 0 when what was asked for is proven, with 1 when it is not there to
    be had, with 3 when the budget was too small to tell. A winner is kept as a version; nothing is rolled out. A study
    that was ended early goes on with --resume.
    """
    names = (
        "objective", "budget", "slo", "suite", "quality_margin", "without", "seed", "price_per_hour", "resume",
        "rehearse",
    )  # fmt: skip
    given = {name: arguments.pop(name) for name in names}
    signal.signal(signal.SIGTERM, _interrupt)
    with _watching(output) as tell:
        found = api.tune(
            workload,
            profile,
            also=also,
            knobs=knobs,
            ladders=dict(_ladder(text) for text in ladders),
            settings={} if units is None else {"units": units},
            tell=tell,
            where=output.place(),
            **given,
            **overrides(arguments),
        )
    if save is not None and found["winner"] is not None:
        save.write_text(found["winner"]["toml"], "utf-8")
        output.note(f"the winner: {save}")
    if html is not None:
        html.write_text(api.study_page(found), "utf-8")
        output.note(f"the study's page: {html}")
    if output.json:
        output.document(**found)
    else:
        _print(output, found)
    return EXITS[found["verdict"]]


def _interrupt(number: int, frame: FrameType | None) -> None:
    """A terminated study ends the engines that it started, as an interrupted one does."""
    raise KeyboardInterrupt


def _ladder(text: str) -> tuple[str, tuple[Any, ...]]:
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise Invalid(f"a ladder is written FIELD=A,B,C, but is '{text}'", param="ladder")
    return name.strip(), tuple(store.parse_override(f"value={value}")[1] for value in values.split(","))


@contextmanager
def _watching(output: Output) -> Iterator[Callable[[Progress], None]]:
    """A bar with the best so far where somebody watches; else a line for each stage."""
    import sys

    if output.watched and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.fields[stage]:<10}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
                   TextColumn("{task.description}"))  # fmt: skip
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("", total=1.0, stage="")
            yield lambda now: bars.update(task, completed=now.done, description=now.text, stage=now.stage)
        return
    said: list[str] = []

    def tell(now: Progress) -> None:
        line = f"{now.stage}: {now.text}"
        if line not in said[-1:]:
            said.append(line)
            output.note(line)

    yield tell


def _print(output: Output, found: Mapping[str, Any]) -> None:
    """The story, what would change, and how sure that is."""
    for line in found["story"]:
        click.echo(line)
    shown = found["winner"]
    if found["effect"] is not None and found["interval"] is not None:
        low, high = found["interval"]
        click.echo(
            f"{found['verdict']}: {found['metric']} {found['effect']:+.1%} ({low:+.1%} … {high:+.1%} at "
            f"{found['confidence']:.0%}), better {found['better']}"
        )
    if shown is None:
        click.echo("no profile is proposed")
        return
    for change in shown["changes"]:
        click.echo(f"  {change['path']}: {change['before']} → {change['after']}")
    if shown.get("version"):
        click.echo(f"kept as version {shown['version'][:12]}; temper rollout start {shown['version'][:12]}")
