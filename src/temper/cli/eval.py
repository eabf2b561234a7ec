"""`temper eval`: how good the answers are, with intervals, and whether they are as good as another's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from temper import api
from temper.api.evaluating import DEFAULT_COUNT, DEFAULT_SUITES
from temper.cli.bench import EXIT_FAILED, EXIT_INCONCLUSIVE
from temper.cli.command import command
from temper.cli.loads import list_of
from temper.cli.options import overrides, sampling, sampling_options, setting_options
from temper.cli.output import Output
from temper.errors import Invalid
from temper.measure.quality.kinds import KINDS

SUITES = "; ".join(f"{name}: {kind.about}" for name, kind in KINDS.items())

NAMED = ("against", "margin", "concurrency", "price_per_hour", "pairs", "allow_weaker_isolation", "answers")
"""Options that go by the same name in `api.evaluate`."""


@command(name="eval")
@click.argument("profile", default=api.DEFAULT_PROFILE)
@click.option("--url", help="A running OpenAI-compatible server instead, such as http://127.0.0.1:8000/v1.")
@click.option(
    "--model", "-m", help="With --url: the model's name there. Else: the checkpoint, in place of the profile's."
)
@click.option(
    "--suite",
    "suites",
    callback=list_of(str),
    default=",".join(DEFAULT_SUITES),
    show_default=True,
    help=f"Which suites, as a,b,c. {SUITES}.",
)
@click.option("--count", default=DEFAULT_COUNT, show_default=True, type=click.IntRange(1), help="Items of each suite.")
@click.option("--against", metavar="OTHER", help="Another profile or URL: a verdict whether PROFILE is not worse.")
@click.option("--margin", type=click.FloatRange(0), help="Loss that still counts as none.  [default: the metric's own]")
@click.option("--concurrency", default=8, show_default=True, type=click.IntRange(1), help="Items asked at once.")
@click.option("--price-per-hour", type=click.FloatRange(0), help="Of the machine, for cost per million tokens.")
@click.option(
    "--pairs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='For the suite overlap: JSON lines {"prompt": …, "references": […]}.',
)
@click.option("--allow-weaker-isolation", is_flag=True, help="Run programs even where Landlock or seccomp is missing.")
@click.option("--answers", is_flag=True, help="With --json: every item with its answer.")
@click.option("--ratings", "rated", is_flag=True, help="What people's ratings come to instead; nothing is asked.")
@click.option("--lm-eval", "tasks", callback=list_of(str), help="Tasks of lm-eval instead, as a,b,c.")
@click.option(
    "--lm-eval-tasks",
    "include",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with tasks of your own.",
)
@sampling_options
@setting_options
def evaluate(
    output: Output,
    profile: str,
    url: str | None,
    model: str | None,
    suites: tuple[str, ...],
    count: int,
    tasks: tuple[str, ...],
    include: Path | None,
    seed: int | None,
    rated: bool,
    **arguments: Any,
) -> int:
    """Ask quality suites of a profile or a server, and compare it with another.

    Items are fresh unless --seed names them; both sides of --against answer the same ones. Exits with 1 when a verdict
    is fail, with 3 when one is inconclusive.
    """
    if rated:
        return _ratings(output)
    arguments["seed"] = None  # an option of sampling too: here it names the items
    asked = sampling(arguments)
    max_tokens = asked.pop("max_tokens", None)
    named = {name: arguments.pop(name) for name in NAMED}
    changes = overrides(arguments)
    if url is not None and changes:
        raise Invalid("--url measures a server as it is: it goes with no profile options", param="url")
    if model is not None and url is None:
        changes["engine.checkpoint"] = model
    where: dict[str, Any] = {"url": url, "model": model if url is not None else None, "where": output.place()}
    if tasks:
        found = api.evaluate_lm_eval(profile, tasks=tasks, include=include, limit=count, seed=seed, **where, **changes)
        if output.json:
            output.document(**found)
        else:
            _print_lm_eval(found)
        return 0
    with output.counting() as tell:
        found = api.evaluate(
            profile, suites=suites, count=count, seed=seed, sampling=asked, max_tokens=max_tokens, tell=tell,
            **where, **named, **changes,
        )  # fmt: skip
    if output.json:
        output.document(**found)
    else:
        _print(output, found)
    outcomes = {suite["verdict"]["verdict"] for suite in found["suites"] if "verdict" in suite}
    return EXIT_FAILED if "fail" in outcomes else EXIT_INCONCLUSIVE if "inconclusive" in outcomes else 0


def _print(output: Output, found: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("suite", "metric", "better", "value", "95 % interval", "items", "cut off", "against"):
        table.add_column(heading, no_wrap=True, justify="right" if heading in ("value", "items") else "left")
    for suite in found["suites"]:
        for index, (name, figure) in enumerate(suite["metrics"].items()):
            cut = suite["truncation_rate"]["value"]
            other = suite.get("against", {}).get("metrics", {}).get(name)
            table.add_row(
                suite["suite"] if index == 0 else "",
                name,
                figure["better"],
                _number(figure["value"]),
                _interval(figure["interval"]),
                str(figure["num_items"]),
                "" if index or cut is None else f"{cut:.0%}",
                "" if other is None else _number(other["value"]),
            )
    output.console.print(table)
    for suite in found["suites"]:
        for line in _lines(suite):
            click.echo(line)
    click.echo(f"seed {found['seed']}: the same items again with --seed {found['seed']}")


def _lines(suite: Mapping[str, Any]) -> list[str]:
    """What belongs beside a suite's figures."""
    name, lines = suite["suite"], []
    if "verdict" in suite:
        verdict = suite["verdict"]
        effect = (
            "" if verdict["effect"] is None else f", effect {verdict['effect']:+.4g} {_interval(verdict['interval'])}"
        )
        lines.append(f"{name}: {verdict['verdict']}: {verdict['claim']}{effect}; {verdict['reason']}")
    if "nll" in suite["metrics"] and suite["metrics"]["nll"]["value"] is not None:
        lines.append(f"{name}: perplexity {math.exp(suite['metrics']['nll']['value']):.3f} (exp of nll)")
    for reason, number in suite["failures"].items():
        lines.append(f"{name}: {number} items failed: {reason}")
    isolation = suite["notes"].get("isolation")
    if isolation is not None:
        reached = "full" if isolation["full"] else f"weaker, without {', '.join(isolation['missing'])}"
        lines.append(f"{name}: isolation {reached} ({', '.join(isolation['layers'])})")
    cost = suite["cost"]
    said = [f"{cost['wall_s']:.1f} s"]
    if cost["cpu_s"] is not None:
        said.append(f"{cost['cpu_s']:.1f} CPU seconds")
    for field, about in (
        ("wall_s_per_correct_answer", "s a correct answer"),
        ("money_per_million_tokens", "a million tokens"),
        ("money_per_correct_answer", "a correct answer"),
        ("joules", "joules"),
    ):
        if cost[field] is not None:
            said.append(f"{cost[field]:.4g} {about}")
    lines.append(f"{name}: {', '.join(said)}")
    return lines


def _ratings(output: Output) -> int:
    found = api.ratings(where=output.place())
    if output.json:
        output.document(ratings=found)
        return 0
    for row in found:
        version = f" ({row['version']})" if row["version"] else ""
        share = f"{row['share_good']:.1%} good {_interval(row['interval'])}"
        click.echo(f"{row['model']}{version}: {share}, {row['ratings']} ratings")
    if not found:
        click.echo("nobody has rated an answer yet: POST /v1/feedback, or the thumbs in the playground")
    return 0


def _print_lm_eval(found: Mapping[str, Any]) -> None:
    for task, scores in found["results"].items():
        for metric, value in scores.items():
            if isinstance(value, float) and not metric.endswith("_stderr,none"):
                error = scores.get(metric.replace(",", "_stderr,"))
                spread = f" ± {error:.4f} (standard error)" if isinstance(error, float) else ""
                click.echo(f"{task}: {metric.removesuffix(',none')} {value:.4f}{spread}")
    click.echo(f"lm-eval {found['version']}, seed {found['seed']}, limit {found['limit']}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _interval(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"
