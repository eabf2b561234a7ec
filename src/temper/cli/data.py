"""`temper data`: make, clean, vary and divide data to train on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from temper import api
from temper.cli.command import command
from temper.cli.loads import list_of
from temper.cli.output import Output
from temper.measure.quality.generators.tasks import TASKS
from temper.refine.data.augment import OPERATIONS
from temper.refine.data.clean import PII_ACTIONS
from temper.refine.data.leaks import NEAR

FILE = click.Path(path_type=Path)
TASK_HELP = "; ".join(f"{name}: {task.about}" for name, task in TASKS.items())
EXIT_LEAK = 1


def levels_of(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """`1-3` or `1,4` as levels."""
    low, dash, high = value.partition("-")
    try:
        if dash:
            return tuple(range(int(low), int(high) + 1))
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"levels are written 1-3 or 1,4, but this is '{value}'") from None


@click.group()
def data() -> None:
    """Make data to train on: generate, clean, augment, split."""


@command(data)
@click.argument("out", type=FILE)
@click.option(
    "--task", "tasks", callback=list_of(str), default="arithmetic,words,logic", show_default=True,
    help=f"Which tasks, as a,b=2,c: b twice as often. {TASK_HELP}.",
)  # fmt: skip
@click.option("--count", type=click.IntRange(1), default=1000, show_default=True, help="Questions that are drawn.")
@click.option("--levels", callback=levels_of, default="1-3", show_default=True, help="1: one step … 5: many.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--hold-out-seed", type=int, help="Leave out what `temper eval --seed` asks at this seed.")
@click.option(
    "--hold-out-count", type=click.IntRange(1), default=200, show_default=True, help="Items of each suite left out."
)
@click.option("--keep-out", type=FILE, help="Leave out what is asked in this data file.")
@click.option("--teacher", metavar="PROFILE|URL", help="Take its working where its answer verifies.")
@click.option("--teacher-model", help="With a URL: the model's name there.")
@click.option(
    "--samples", type=click.IntRange(1), default=1, show_default=True, help="Tries of the teacher a question."
)
@click.option("--max-tokens", type=click.IntRange(1), default=2048, show_default=True, help="Of a teacher's answer.")
@click.option("--temperature", type=click.FloatRange(0), help="Of the teacher.  [default: as its profile says]")
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Questions asked at once.")
@click.option("--without-thinking", is_flag=True, help="Keep a teacher's answers that show no thinking, too.")
@click.option("--restart", is_flag=True, help="Begin again, whatever an unfinished run has left.")
@click.option("--allow-weaker-isolation", is_flag=True, help="Run programs even where Landlock or seccomp is missing.")
def generate(
    output: Output,
    out: Path,
    tasks: tuple[str, ...],
    hold_out_seed: int | None,
    hold_out_count: int,
    keep_out: Path | None,
    teacher: str | None,
    restart: bool,
    samples: int,
    max_tokens: int,
    temperature: float | None,
    concurrency: int,
    without_thinking: bool,
    **settings: Any,
) -> None:
    """Write verified questions with step-by-step working to OUT (.jsonl or .parquet).

    The working stands in <think>…</think>, the answer behind it. Every equation is worked out again, every answer read
    back. A run that was killed goes on where it was when it is started again.
    """
    teaching = {
        "samples": samples, "max_tokens": max_tokens, "temperature": temperature, "concurrency": concurrency,
        "need_thinking": not without_thinking,
    }  # fmt: skip
    with output.counting() as progress:
        manifest = api.generate_data(
            out, tasks, teacher=teacher, teaching=teaching if teacher else None, keep_out=keep_out,
            resume=not restart, held_out_seed=hold_out_seed, held_out_count=hold_out_count,
            progress=progress, where=output.place(), **settings,
        )  # fmt: skip
    if output.json:
        output.document(out=str(out), manifest=manifest)
        return
    report = manifest["report"]
    click.echo(f"{out}: {manifest['num_records']} records of {report['num_asked']} questions")
    for task, levels in report["by_task_and_level"].items():
        shown = ", ".join(f"level {level}: {number}" for level, number in levels.items())
        click.echo(f"{task}: {shown}")
    _print_dropped(report)


@command(data)
@click.argument("source", type=FILE)
@click.argument("out", type=FILE)
@click.option("--model", "-m", default=api.DEFAULT_MODEL, show_default=True, help="Lengths are in its tokens.")
@click.option("--min-tokens", type=click.IntRange(0), default=512, show_default=True, help="Shorter records go.")
@click.option("--max-tokens", type=click.IntRange(1), default=16384, show_default=True, help="Longer records go.")
@click.option("--languages", callback=list_of(str), help="Keep these alone, as en,zh.  [default: all, named]")
@click.option(
    "--near", type=click.FloatRange(0, 1), default=NEAR, show_default=True,
    help="Word triples in common from which a record goes for one before; 0: only equal ones do.",
)  # fmt: skip
@click.option(
    "--pii", type=click.Choice(PII_ACTIONS), default="flag", show_default=True,
    help="E-mail, phone, card and account numbers, identity numbers, keys: name them in the metadata, mask, drop.",
)  # fmt: skip
@click.option("--drop-malformed", is_flag=True, help="Count lines that are no record instead of stopping there.")
@click.option("--restart", is_flag=True, help="Begin again, whatever an unfinished run has left.")
def clean(
    output: Output, source: Path, out: Path, languages: tuple[str, ...], near: float, restart: bool, **settings: Any
) -> None:
    """Write what is fit of SOURCE to OUT, and say what was dropped and why.

    SOURCE is .jsonl, .json, .parquet, .txt or a folder of these; records may have the shape of ShareGPT, Alpaca or
    plain text. A run that was killed goes on where it was when it is started again.
    """
    with output.counting() as progress:
        manifest = api.clean_data(
            source, out, languages=languages, near=near or None, resume=not restart, progress=progress,
            where=output.place(), **settings,
        )  # fmt: skip
    if output.json:
        output.document(out=str(out), manifest=manifest)
        return
    report = manifest["report"]
    click.echo(f"{out}: {report['num_kept']} of {report['num_read']} records ({report['kept_share']:.1%})")
    _print_dropped(report)
    for name in ("languages", "pii"):
        if report[name]:
            click.echo(f"{name}: {', '.join(f'{kind} {number}' for kind, number in report[name].items())}")


@command(data)
@click.argument("source", type=FILE)
@click.argument("out", type=FILE)
@click.option(
    "--operations", callback=list_of(str), default="synonyms,typos,numbers", show_default=True,
    help=f"Of {', '.join(OPERATIONS)}, as a,b,c; in turns.",
)  # fmt: skip
@click.option("--copies", type=click.IntRange(1), default=1, show_default=True, help="Variants of each record.")
@click.option("--drop-originals", is_flag=True, help="Write the variants alone.")
@click.option(
    "--rate", type=click.FloatRange(0, 1, min_open=True), default=0.15, show_default=True,
    help="Share of the words that may change which do.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option(
    "--synonyms", type=FILE, help="A table of your own: words that mean the same on a line, tab or / between."
)
@click.option("--engine", metavar="PROFILE|URL", help="Who makes paraphrases.")
@click.option("--engine-model", help="With a URL: the model's name there.")
@click.option("--temperature", type=click.FloatRange(0), help="Of paraphrases.  [default: as the profile says]")
@click.option("--restart", is_flag=True, help="Begin again, whatever an unfinished run has left.")
@click.option("--allow-weaker-isolation", is_flag=True, help="Run programs even where Landlock or seccomp is missing.")
def augment(
    output: Output, source: Path, out: Path, operations: tuple[str, ...], drop_originals: bool, restart: bool,
    **settings: Any,
) -> None:  # fmt: skip
    """Write SOURCE and variants of its records to OUT.

    synonyms, typos and paraphrase change how something is asked and leave the answer. numbers draws other operands
    for a question made of a template, and makes its answer and its working again. metrics ends the question with
    figures of the example itself.
    """
    with output.counting() as progress:
        manifest = api.augment_data(
            source, out, operations=operations, keep_original=not drop_originals, resume=not restart,
            progress=progress, where=output.place(), **settings,
        )  # fmt: skip
    if output.json:
        output.document(out=str(out), manifest=manifest)
        return
    report = manifest["report"]
    click.echo(f"{out}: {report['num_kept']} records of {report['num_read']}")
    click.echo(f"made: {', '.join(f'{name} {number}' for name, number in report['made'].items()) or 'none'}")
    _print_dropped(report)


@command(data)
@click.argument("source", type=FILE)
@click.argument("train", type=FILE)
@click.argument("test", type=FILE)
@click.option(
    "--share", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Of records, for the test set."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same bytes.")
@click.option("--by", metavar="FIELD", help="Keep records together that agree in this field of their metadata.")
@click.option("--sides", metavar="FIELD", help="The field of the metadata that says train or test itself.")
@click.option(
    "--near", type=click.FloatRange(0, 1), default=NEAR, show_default=True,
    help="Word triples in common from which two questions count as one; 0: only equal ones do.",
)  # fmt: skip
@click.option("--against", type=FILE, multiple=True, help="A test set that no record may stand in. May be repeated.")
def split(
    output: Output, source: Path, train: Path, test: Path, near: float, against: tuple[Path, ...], **settings: Any
) -> None:
    """Divide SOURCE into TRAIN and TEST so that no question stands in both.

    The same question means: by the letter, nearly, or made of the same template and operands. Refuses, naming the
    records, where the sides that were asked for would leak.
    """
    with output.counting() as progress:
        found = api.split_data(source, train, test, against=against, near=near or None, progress=progress, **settings)
    if output.json:
        output.document(**found)
        return
    report = found["report"]
    click.echo(f"{train}: {report['num_train']} records; {test}: {report['num_test']} ({report['test_share']:.1%})")
    click.echo(f"{report['num_groups']} groups that ask the same, none divided; no leak between the sides")


@command(data)
@click.argument("train", type=FILE)
@click.argument("test", type=FILE)
@click.option("--near", type=click.FloatRange(0, 1), default=NEAR, show_default=True, help="As in `temper data split`.")
def leaks(output: Output, train: Path, test: Path, near: float) -> int:
    """Say which questions of TEST stand in TRAIN; exits with 1 when there are any."""
    with output.counting() as progress:
        found = api.find_data_leaks(train, test, near=near or None, progress=progress)
    if output.json:
        output.document(**found)
    else:
        for leak in found["leaks"]:
            click.echo(
                f"{leak['train']} and {leak['test']}: {leak['kind']}, {leak['similarity']:.1%}: {leak['excerpt']}"
            )
        click.echo(f"{found['num_leaks']} leaks")
    return EXIT_LEAK if found["num_leaks"] else 0


def _print_dropped(report: Mapping[str, Any]) -> None:
    for reason, found in report["dropped"].items():
        click.echo(f"dropped {found['count']} ({found['share']:.1%}): {reason}")
        for example in found["examples"]:
            said = ": ".join(part for part in (example["where"], example["detail"], example["excerpt"]) if part)
            click.echo(f"  {said[:110]}")
