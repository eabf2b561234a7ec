"""The command group: which commands there are, and the way in.

A command's module is imported when the command runs, so that `temper --help` answers at once. The table
below therefore holds each command's one-line help; a test holds it equal to the command's own.
"""

from __future__ import annotations

import difflib
import gc
import importlib
import sys
from typing import Any

import click

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("temper.cli.serve:serve", "Serve a profile or a model over HTTP, with a page to try it."),
    "run": ("temper.cli.run:run", "Answer one question and print it as it is written."),
    "chat": ("temper.cli.chat:chat", "Talk with a model in the terminal."),
    "bench": ("temper.cli.bench:bench", "Load an engine or a server and measure what its clients see."),
    "eval": ("temper.cli.eval:evaluate", "Ask quality suites of a profile or a server, and compare it with another."),
    "tune": ("temper.cli.tune:tune", "Search for a better profile under a WORKLOAD, and prove it."),
    "trace": ("temper.cli.trace:trace", "Show where the time of a run goes, and what would help."),
    "ab": ("temper.cli.ab:ab", "Compare B with A: the same requests to both in turns, and a verdict."),
    "refine": (
        "temper.cli.refine:refine",
        "Make checkpoints of checkpoints: quantize, export, train, merge, distill.",
    ),
    "data": ("temper.cli.data:data", "Make data to train on: generate, clean, augment, split."),
    "recipe": ("temper.cli.recipe:recipe", "Run an end-to-end RECIPE: teach, distil, quantize, examine, canary."),
    "pull": ("temper.cli.pull:pull", "Fetch a model into the cache."),
    "models": ("temper.cli.models:models", "List the models that are known by name, or here already."),
    "import-command": (
        "temper.cli.import_command:import_command",
        "Make a profile of the command line that starts your server today.",
    ),
    "advise": (
        "temper.cli.advise:advise",
        "Advise on the route to a cheaper model: quantize, fine-tune, or both.",
    ),
    "versions": ("temper.cli.versions:versions", "Keep profiles as versions: list, show, compare, promote, retire."),
    "rollout": ("temper.cli.rollout:rollout", "Move traffic to a version, and back when it is worse."),
    "loop": ("temper.cli.loop:loop", "Act on what is seen: rollouts, and tuning when something drifts."),
    "profile": ("temper.cli.profile:profile", "Show, compare and check profiles."),
}
"""Name: where it is defined, and what it does."""

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class LazyGroup(click.Group):
    """A group that imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is the order of a first visit."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the command called `name`."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        gc.disable()  # what imports make is no garbage; looking for some takes a tenth of their time
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        finally:
            gc.enable()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, but an unknown command names the nearest, and what a command is sure to need begins now."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"there is no command '{args[0]}'; {hint}", ctx)
        if args[:1] == ["serve"] and not ctx.resilient_parsing and not {"-h", "--help"}.intersection(args):
            from temper import api

            api.begin()  # it imports while we do
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from temper import __version__

        click.echo(f"temper {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def temper() -> None:
    """Serve open reasoning models fast on the machine you have.

    Commands exit with 0 (done, passed), 1 (failed), 2 (wrong usage) or 3 (inconclusive). With --json a command
    writes one JSON document to standard output; progress and logs go to standard error.
    """


def run(args: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        result: Any = temper.main(args=args, prog_name="temper", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_FAILED
    except (click.exceptions.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; there is nobody left to tell
        return EXIT_FAILED
    return result if isinstance(result, int) else 0
