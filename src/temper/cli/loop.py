"""`temper loop`: rollouts controlled, drift noticed, better profiles found and proven."""

from __future__ import annotations

import signal
from datetime import datetime
from types import FrameType

import click

from temper import api
from temper.cli.command import command
from temper.cli.output import Output


@click.group()
def loop() -> None:
    """Act on what is seen: rollouts, and tuning when something drifts."""


@command(loop)
@click.option("--tune", is_flag=True, help="Tune when something drifts, and put what is proven on a canary.")
@click.option("--dry-run", is_flag=True, help="Take one look at one deployment, say what would be done, and end.")
@click.option("--deployment", help="With --dry-run: whose.  [default: the one whose servers are running]")
@click.option("--objective", default="", help="What to tune for, as in `temper tune`.")
@click.option("--budget", default="10min", show_default=True, help="Of each study: 10min, or 40 trials.")
@click.option("--interval", "interval_s", default=60.0, show_default=True, help="Seconds between two looks.")
@click.option("--window", "window_s", default=600.0, show_default=True, help="Seconds that a look covers.")
def run(
    output: Output,
    tune: bool,
    dry_run: bool,
    deployment: str | None,
    objective: str,
    budget: str,
    interval_s: float,
    window_s: float,
) -> None:
    """Control the rollouts of this place's store until SIGTERM; with --tune, keep looking for better profiles."""
    where = output.place()
    if dry_run:
        turn = api.turn(deployment, objective=objective, budget=budget, window_s=window_s, where=where)
        if output.json:
            output.document(deployment=turn.deployment, outcome=turn.outcome, sentences=turn.sentences)
        else:
            click.echo(turn.prose())
        return
    ended: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        ended.append(number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    api.control(
        lambda: bool(ended),
        tune=tune,
        objective=objective,
        budget=budget,
        interval_s=interval_s,
        window_s=window_s,
        where=where,
    )


@command(loop)
@click.option("--deployment", help="Whose.  [default: of all]")
@click.option("--most", default=10, show_default=True, help="Turns shown.")
def log(output: Output, deployment: str | None, most: int) -> None:
    """Read the record: what was seen, done and found, newest turn first."""
    with api.open_store(output.place()) as store:
        turns = list(store.turns.all(deployment, most=most))
    if output.json:
        output.document(turns=turns)
        return
    for turn in turns:
        when = datetime.fromtimestamp(turn["started_at"]).strftime("%Y-%m-%d %H:%M")
        click.echo(f"{when}  {turn['deployment']}: {turn['outcome']}\n  {' '.join(turn.get('sentences', ()))}\n")
