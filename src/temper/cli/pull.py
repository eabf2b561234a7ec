"""`temper pull`: fetch a model into the cache."""

from __future__ import annotations

import click

from temper import api
from temper.cli.command import command
from temper.cli.output import Output


@command()
@click.argument("model", default=api.DEFAULT_MODEL)
def pull(output: Output, model: str) -> None:
    """Fetch a model into the cache.

    MODEL is a name from `temper models`, hf:OWNER/NAME[@REVISION][:FILE.gguf], a folder, or a .gguf file.
    """
    with output.progress() as progress:
        fetched = api.pull(model, progress, where=output.place())
    if output.json:
        output.document(source=fetched.source, path=str(fetched.path), revision=fetched.revision)
    else:
        click.echo(fetched.path)
