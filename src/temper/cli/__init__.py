"""The `temper` command: parses, calls `temper.api`, prints. Commands are loaded only when they run."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its code: 0 done, 1 failed, 2 wrong usage, 3 inconclusive."""
    from temper.cli.app import run

    raise SystemExit(run())
