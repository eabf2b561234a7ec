"""`temper run`: one question, one answer."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from temper import api
from temper.asking import Reading, ask
from temper.cli.command import command
from temper.cli.options import overrides, sampling, sampling_options, setting_options
from temper.cli.output import Output
from temper.errors import Invalid
from temper.types import Delta, Message


@command()
@click.argument("prompt", required=False)
@click.option("--model", "-m", "named", default=api.DEFAULT_PROFILE, show_default=True, help="A model or a profile.")
@click.option("--system", help="What the model is told before the question.")
@click.option("--raw", is_flag=True, help="Continue the text as it stands, without the chat template.")
@click.option("--hide-thinking", is_flag=True, help="Show only the answer proper.")
@sampling_options
@setting_options
def run(
    output: Output,
    prompt: str | None,
    named: str,
    system: str | None,
    raw: bool,
    hide_thinking: bool,
    **arguments: Any,
) -> None:
    """Answer one question and print it as it is written.

    The question is PROMPT, or standard input, or both: then the input follows the question, as in
    `temper run "Summarise this:" < notes.txt`. Thinking is shown dim, on a terminal only.
    """
    changes, options = overrides(arguments), sampling(arguments)
    text = _question(prompt)
    turns = ([Message("system", system)] if system else []) + [Message("user", text)]
    request = ask(text if raw else turns, **options)
    reading = Reading()
    with output.progress() as progress:
        model = api.load(named, progress=progress, where=output.place(), **changes)
    with model:
        for event in model.events(request):
            reading.take(event)
            if isinstance(event, Delta) and not output.json:
                _write(event, output.watched, hide_thinking)
    answer = reading.answer()
    if output.json:
        output.document(
            text=answer.text,
            reasoning=answer.reasoning,
            finish_reason=answer.finish_reason,
            usage=asdict(answer.usage),
            timings=asdict(answer.timings),
            made_by=asdict(answer.made_by),
        )
    elif not answer.text.endswith("\n"):
        click.echo()


def _question(prompt: str | None) -> str:
    """The prompt, what was piped in, or both."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    text = "\n\n".join(part for part in (prompt, piped.strip("\n")) if part)
    if not text:
        raise Invalid("a question is needed", param="prompt", hint='temper run "Why is the sky blue?"')
    return text


def _write(delta: Delta, watched: bool, hide_thinking: bool) -> None:
    """Print a piece: thinking dim and for people only, so that a pipe gets the answer alone."""
    if delta.channel == "reasoning":
        if watched and not hide_thinking:
            click.secho(delta.text, dim=True, nl=False)
    else:
        click.echo(delta.text, nl=False)
    sys.stdout.flush()
