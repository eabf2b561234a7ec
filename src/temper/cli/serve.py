"""`temper serve`: a profile over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from temper import api
from temper.cli.command import command
from temper.cli.options import overrides, setting_options
from temper.cli.output import Output
from temper.errors import Invalid


@command()
@click.argument("profile", default=api.DEFAULT_PROFILE)
@click.option("--host", default=api.DEFAULT_HOST, show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=api.DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535), help="0: any free.")
@click.option("--model", "-m", help="The checkpoint, in place of the profile's.")
@click.option(
    "--api-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Keys that clients must show, one a line. A single one may be in $TEMPER_API_KEY.",
)
@click.option(
    "--admin-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Keys that may change the profile of the running server, one a line. A single one may be in "
    "$TEMPER_ADMIN_KEY.",
)
@click.option(
    "--drain",
    "drain_s",
    default=api.DEFAULT_DRAIN_S,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds that running answers may go on after SIGTERM.",
)
@click.option("--deployment", help="Whose rollouts this server follows.  [default: named after PROFILE]")
@click.option("--loop", is_flag=True, help="Run the controller of rollouts beside the server.")
@click.option("--log-level", type=click.Choice(api.LOG_LEVELS), help="  [default: $TEMPER_LOG_LEVEL, or warning]")
@setting_options
def serve(
    output: Output,
    profile: str,
    host: str,
    port: int,
    model: str | None,
    api_key_file: Path | None,
    admin_key_file: Path | None,
    drain_s: float,
    deployment: str | None,
    loop: bool,
    log_level: str | None,
    **arguments: Any,
) -> None:
    """Serve a profile or a model over HTTP, with a page to try it.

    PROFILE is a preset (`temper profile presets`), a .toml file, or a model. The API is OpenAI's, under /v1;
    the page is at /. SIGHUP reads PROFILE again and changes to what it says then, without dropping a request.
    """
    changes = overrides(arguments)
    if model is not None:
        changes["engine.checkpoint"] = model
    where = output.place()
    chosen = api.profile(profile, where=where, **changes)

    def ready(url: str, models: list[str]) -> None:
        if output.json:
            output.document(url=url, models=models, profile=chosen.model_dump(mode="json"))
        else:
            output.note(f"{', '.join(models)} at {url}   (API at {url}/v1, Ctrl-C to stop)")

    with output.progress() as progress:
        api.fetch_all(chosen, where, progress)
    api.serve(
        profile,
        host=host,
        port=port,
        api_keys=_keys(api_key_file, "--api-key-file"),
        admin_keys=_keys(admin_key_file, "--admin-key-file"),
        drain_s=drain_s,
        deployment=deployment,
        loop=loop,
        log_level=log_level,
        on_ready=ready,
        where=where,
        **changes,
    )


def _keys(file: Path | None, option: str) -> tuple[str, ...]:
    """The keys in a file: one a line, blank lines and # comments left out."""
    if file is None:
        return ()
    lines = (line.strip() for line in file.read_text("utf-8").splitlines())
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise Invalid(f"a key file holds one key a line, but {file} holds none", param=option)
    return keys
