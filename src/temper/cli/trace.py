"""`temper trace`: where the time of a run goes, and what would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from temper import api
from temper.cli.bench import end_servers_on_terminate
from temper.cli.command import command
from temper.cli.loads import load_options, take_load
from temper.cli.options import overrides, setting_options
from temper.cli.output import Output
from temper.errors import Invalid

EXIT_FAILED = 1
_BAR_CHARACTERS = 30


@command()
@click.option("--url", help="A running server; its inside is told to who has its $TEMPER_ADMIN_KEY.")
@click.option(
    "--model", "-m", help="With --url: the model's name there. Else: the checkpoint, in place of the profile's."
)
@click.option("--profile", default=api.DEFAULT_PROFILE, show_default=True, help="What to serve and trace.")
@click.option("--in-process", is_flag=True, help="Ask the engine without a server: HTTP is left out.")
@load_options
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Draw it all into one HTML file.")
@setting_options
def trace(
    output: Output,
    url: str | None,
    model: str | None,
    profile: str,
    in_process: bool,
    html: Path | None,
    **arguments: Any,
) -> int:
    """Show where the time of a run goes, and what would help.

    A server is started on the profile, put under load, and ended: every second of its work is given to a stage, and
    bytes and operations are held against what this machine can do. Exits with 1 when a request failed.
    """
    load = take_load(arguments)
    changes = overrides(arguments)
    if url is not None and (in_process or changes):
        raise Invalid(
            "--url traces a server as it is: it goes with neither --in-process nor profile options", param="url"
        )
    if model is not None and url is None:
        changes["engine.checkpoint"] = model
    end_servers_on_terminate()
    found = api.trace(
        profile,
        url=url,
        model=model if url is not None else None,
        in_process=in_process,
        load=load,
        tell=output.note,
        where=output.place(),
        **changes,
    )
    if html is not None:
        from temper.measure.trace.page import page

        html.write_text(page(found), "utf-8")
        output.note(f"picture: {html}")
    if output.json:
        output.document(**found)
    else:
        for run in found["runs"]:
            _print(output, found, run)
    return EXIT_FAILED if any(run["failures"] for run in found["runs"]) else 0


def _print(output: Output, found: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """One run for people: the load, the stages, the request, the limits, the advice."""
    load = f"{run['concurrency']} at once" if run["concurrency"] is not None else "open loop"
    speed = f", {run['output_tokens_per_s']:.1f} tokens/s" if run["output_tokens_per_s"] else ""
    click.echo(
        f"\n{found['model']}, {load}: {run['completed']}/{run['requests']} requests in {run['wall_s']:.1f} s{speed}"
    )
    _print_stages(output, run["stages"], run["work_s"])
    _print_request(run["request_ms"])
    _print_limits(output, found["limits"], run["phases"])
    for one in run["advice"]:
        click.echo(f"→ {one['finding']}: {one['advice']}")
    for kind, count in run["failures"].items():
        click.echo(f"failed: {count} × {kind}")
    for one in run["not_told"]:
        click.echo(f"not told: {one['what']}: {one['reason']}")


def _print_stages(output: Output, stages: Sequence[Mapping[str, Any]], work_s: float) -> None:
    from rich.table import Table

    if not stages:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    for heading in ("seconds", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(f"of {work_s:.2f} s of work", no_wrap=True)
    for heading in ("GB/s", "Gops/s", "of bandwidth", "of peak"):
        table.add_column(heading, justify="right", no_wrap=True)
    longest = max(stage["share"] for stage in stages) or 1.0
    for stage in stages:
        table.add_row(
            stage["stage"],
            f"{stage['seconds']:.3f}",
            f"{stage['share']:.1%}",
            "█" * round(_BAR_CHARACTERS * stage["share"] / longest),
            _giga(stage["bytes_per_s"]),
            _giga(stage["operations_per_s"]),
            _percent(stage["bandwidth_share"]),
            _percent(stage["compute_share"]),
        )
    output.console.print(table)


def _print_request(times: Mapping[str, float | None]) -> None:
    told = [f"{name} {value:.1f}" for name, value in times.items() if value is not None and name != "total"]
    if told:
        click.echo(f"a request takes {times['total']:.1f} ms: {', '.join(told)}")


def _print_limits(output: Output, limits: Mapping[str, Any] | None, phases: Sequence[Mapping[str, Any]]) -> None:
    if limits is None:
        return
    click.echo(
        f"this machine, {limits['threads']} threads, {limits['isa']}: "
        f"reads {limits['read_bytes_per_s'] / 1e9:.1f} GB/s, int8 {limits['int8_operations_per_s'] / 1e9:.0f} Gops/s, "
        f"bf16 {limits['bf16_operations_per_s'] / 1e9:.0f} Gops/s, "
        f"float32 {limits['f32_operations_per_s'] / 1e9:.0f} Gops/s"
    )
    for phase in phases:
        click.echo(
            f"{phase['phase']}: {phase['seconds']:.2f} s of ops, {_giga(phase['bytes_per_s'])} GB/s "
            f"({_percent(phase['bandwidth_share'])} of bandwidth), {_giga(phase['operations_per_s'])} Gops/s "
            f"({_percent(phase['compute_share'])} of peak)"
        )


def _giga(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e9:.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
