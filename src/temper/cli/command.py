"""What all commands share: `--json`, `--home`, `--debug`, and errors in one line.

`@command` turns a function into a click command. The function gets an `Output` as its first argument
and may return an exit code.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from temper.cli.output import Output
from temper.errors import Invalid, MissingExtra, ProfileError, TemperError

USAGE_ERRORS = (Invalid, ProfileError, MissingExtra)
"""What the person who typed can put right: exit code 2. Everything else is a failure: 1."""

Function = Callable[..., Any]


def command(group: click.Group | None = None, **settings: Any) -> Callable[[Function], click.Command]:
    """Decorator: a command with the common options, below `group` where one is given."""

    def decorate(function: Function) -> click.Command:
        @functools.wraps(function)
        def guarded(json_output: bool, home: Path | None, debug: bool, **arguments: Any) -> int:
            name = click.get_current_context().command_path.removeprefix("temper ").replace(" ", ".")
            output = Output(json=json_output, name=name, home=home, debug=debug)
            try:
                return function(output, **arguments) or 0
            except TemperError as error:
                if debug:
                    raise
                output.error(error)
                return 2 if isinstance(error, USAGE_ERRORS) else 1
            except OSError as error:
                if debug or isinstance(error, BrokenPipeError):
                    raise
                output.error(TemperError(f"{type(error).__name__}: {error}"))
                return 1

        wrapped: Function = guarded
        for option in reversed(_COMMON):
            wrapped = option(wrapped)
        make = group.command if group is not None else click.command
        made: click.Command = make(**settings)(wrapped)
        return made

    return decorate


_COMMON = (
    click.option("--json", "json_output", is_flag=True, help="Write one JSON document to standard output."),
    click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for state.  [default: $XDG_DATA_HOME/temper]",
    ),
    click.option("--debug", is_flag=True, help="Show the whole trace of an error."),
)
