"""`temper versions`: stored profiles, where they came from, and where they are."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from temper import api
from temper.cli.command import command
from temper.cli.options import overrides, setting_options
from temper.cli.output import Output
from temper.profile import store as profiles

if TYPE_CHECKING:
    from temper.fleet.versions import Version


@click.group()
def versions() -> None:
    """Keep profiles as versions: list, show, compare, promote, retire."""


@command(versions)
@click.argument("profile", default=api.DEFAULT_PROFILE)
@click.option("--parent", help="The version that it was made from.")
@click.option("--note", default="", help="What it is for.")
@setting_options
def add(output: Output, profile: str, parent: str | None, note: str, **arguments: Any) -> None:
    """Keep a profile as a version. The same profile is the same version."""
    version = api.add_version(profile, parent=parent, note=note, where=output.place(), **overrides(arguments))
    if output.json:
        output.document(version=version.document())
    else:
        click.echo(version.id)


@command(versions, name="list")
@click.option("--stage", type=click.Choice(["candidate", "canary", "production", "retired"]), help="Only these.")
def list_(output: Output, stage: Any) -> None:
    """List the versions, newest first."""
    with api.open_store(output.place()) as store:
        found = store.versions.all(stage)
    if output.json:
        output.document(versions=[version.document() for version in found])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("VERSION", "STAGE", "FROM", "PARENT", "KEPT", "NOTE"):
        table.add_column(heading)
    for version in found:
        when = datetime.fromtimestamp(version.created_at).strftime("%Y-%m-%d %H:%M")
        table.add_row(version.short, version.stage, _origin(version), (version.parent or "")[:12], when, version.note)
    output.console.print(table)


@command(versions)
@click.argument("version")
def show(output: Output, version: str) -> None:
    """Show a version: its profile, its lineage, its evidence."""
    with api.open_store(output.place()) as store:
        line = store.versions.lineage(version)
        evidence = store.versions.evidence(version)
    found = line[0]
    if output.json:
        output.document(
            version=found.document(),
            lineage=[{"id": one.id, "stage": one.stage, "origin": one.origin, "source": one.source} for one in line],
            evidence=[
                {"kind": one.kind, "verdict": one.verdict, "at": one.at, "document": one.document} for one in evidence
            ],
        )
        return
    click.echo(f"# version {found.id}\n# {found.stage}, from {_origin(found)}")
    for one in line[1:]:
        click.echo(f"# made from {one.short}, {one.stage}, from {_origin(one)}")
    for witness in evidence:
        click.echo(f"# {witness.kind}: {witness.verdict}: {witness.document.get('reason', '')}")
    click.echo(profiles.dumps(found.profile, only_changes=True), nl=False)


@command(versions)
@click.argument("a")
@click.argument("b")
def diff(output: Output, a: str, b: str) -> None:
    """List the fields in which version B differs from version A; either may be any profile."""
    where = output.place()
    changes = profiles.diff(api.profile(a, where=where), api.profile(b, where=where))
    if output.json:
        output.document(changes=[{"field": item.path, "a": item.before, "b": item.after} for item in changes])
        return
    for item in changes:
        click.echo(f"{item.path}: {item.before!r} -> {item.after!r}")


@command(versions)
@click.argument("version")
@click.option("--deployment", help="Whose production.  [default: the one whose servers are running]")
def promote(output: Output, version: str, deployment: str | None) -> None:
    """Make a version production at once, without a rollout: a person's decision. A rollout under way ends."""
    with api.open_store(output.place()) as store, store.database.transaction():
        found = store.versions.find(version)
        target = store.deployments.chosen(deployment)
        store.deployments.produce(target.name, found.id, f"Version {found.short} was promoted by hand.")
    with api.open_store(output.place()) as store:
        _told(output, store.versions.find(found.id))


@command(versions)
@click.argument("version")
def retire(output: Output, version: str) -> None:
    """Take a version out of choice. It is kept."""
    with api.open_store(output.place()) as store:
        _told(output, store.versions.retire(version))


def _told(output: Output, version: Version) -> None:
    if output.json:
        output.document(version=version.document())
    else:
        output.note(f"{version.short} is {version.stage}")


def _origin(version: Version) -> str:
    return f"{version.origin} {version.source}".strip()
