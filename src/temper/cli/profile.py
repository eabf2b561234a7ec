"""`temper profile`: show, compare and check profiles."""

from __future__ import annotations

from typing import Any

import click

from temper import api
from temper.cli.command import command
from temper.cli.options import overrides, setting_options
from temper.cli.output import Output
from temper.profile import store
from temper.profile.presets import describe_preset, preset_names, task_preset, task_presets


@click.group()
def profile() -> None:
    """Show, compare and check profiles."""


@command(profile)
def presets(output: Output) -> None:
    """List the presets: deployments, and tasks."""
    deployments = {name: describe_preset(name) for name in preset_names()}
    tasks = {name: task_preset(name) for name in task_presets()}
    if output.json:
        output.document(
            deployments=deployments, tasks={name: task.model_dump(exclude_none=True) for name, task in tasks.items()}
        )
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("PRESET", "KIND", "WHAT IT IS FOR"):
        table.add_column(heading)
    for name, about in deployments.items():
        table.add_row(name, "deployment", about)
    for name, task in tasks.items():
        table.add_row(name, "task", task.description)
    output.console.print(table)


@command(profile)
@click.argument("name", default=api.DEFAULT_PROFILE)
@click.option("--all", "whole", is_flag=True, help="Every field, not only those that differ from the defaults.")
@setting_options
def show(output: Output, name: str, whole: bool, **arguments: Any) -> None:
    """Print a profile as TOML, with changes applied: a file to start from."""
    shown = api.profile(name, **overrides(arguments))
    if output.json:
        output.document(profile=shown.model_dump(mode="json"))
    else:
        click.echo(store.dumps(shown, only_changes=not whole), nl=False)


@command(profile)
@click.argument("a")
@click.argument("b")
def diff(output: Output, a: str, b: str) -> None:
    """List the fields in which profile B differs from profile A."""
    changes = store.diff(api.profile(a), api.profile(b))
    if output.json:
        output.document(changes=[{"field": item.path, "a": item.before, "b": item.after} for item in changes])
        return
    for item in changes:
        click.echo(f"{item.path}: {item.before!r} -> {item.after!r}")


@command(profile)
@click.argument("names", nargs=-1, required=True)
def check(output: Output, names: tuple[str, ...]) -> None:
    """Check profiles against the schema; the first broken one is explained, and the exit code is 2."""
    for name in names:
        store.resolve(name)
    if output.json:
        output.document(valid=list(names))
    else:
        output.note(f"{len(names)} valid")
