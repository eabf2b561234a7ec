"""`temper import-command`: the command line that somebody serves with today, as a profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from temper import api
from temper.cli.command import command
from temper.cli.output import Output
from temper.profile import store
from temper.profile.walk import Field, tunable_fields


@command()
@click.argument("words", nargs=-1, required=True, metavar="COMMAND...")
@click.option(
    "--output", "-o", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the profile to this file."
)
def import_command(output: Output, words: tuple[str, ...], file: Path | None) -> None:
    """Make a profile of the command line that starts your server today.

    COMMAND is one quoted text, as you would type it, or the words after `--`. vLLM, SGLang and llama-server are known:
    flags that their schemas name become fields, which a study can tune; everything else is kept as it stands.
    Nothing is started: that is what `temper serve PROFILE` does.

    \b
    temper import-command "vllm serve Qwen/Qwen3-8B --max-num-seqs 64" -o mine.toml
    temper import-command -- llama-server -m model.gguf -c 8192 -np 4
    """
    found = api.import_command(words[0] if len(words) == 1 else words)
    if file is not None:
        store.save(found.profile, file)
    tunable = {field.name: field for field in tunable_fields(found.profile) if field.path.startswith("engine.flags.")}
    if output.json:
        output.document(
            profile=found.profile.model_dump(mode="json"),
            command=found.command,
            flags=found.flags,
            tunable=[_described(field, found.flags.get(name)) for name, field in tunable.items()],
            kept=list(found.kept),
            notes=list(found.notes),
        )
        return
    if file is None:
        click.echo(store.dumps(found.profile, only_changes=True), nl=False)
    output.note(f"{len(found.flags)} flags understood: {', '.join(found.flags) or 'none'}")
    if found.kept:
        output.note(f"kept as they stand: {' '.join(found.kept)}")
    for note in found.notes:
        output.note(f"note: {note}")
    output.note(f"a study can vary {len(tunable)} flags: {', '.join(tunable)}")


def _described(field: Field, value: Any) -> dict[str, Any]:
    mark = field.tunable
    assert mark is not None
    span = {"choices": list(mark.choices)} if mark.choices else {"low": mark.low, "high": mark.high}
    return {"field": field.path, "value": value, **span, "scale": mark.scale, "restart": mark.restart}
