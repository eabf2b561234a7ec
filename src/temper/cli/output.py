"""What commands write: text for people, one JSON document for programs, progress for whoever watches.

Standard output carries the result and nothing else; everything that happens on the way goes to standard
error. Knows nothing of what the results mean.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from temper.errors import TemperError

if TYPE_CHECKING:
    from rich.console import Console

    from temper.api import Place, Progress


class Output:
    """Where one command writes to."""

    def __init__(self, *, json: bool, name: str, home: Path | None = None, debug: bool = False) -> None:
        self.json = json
        self.name = name
        self.debug = debug
        self._home = home

    @property
    def watched(self) -> bool:
        """Whether a person sees standard output, so that colours and progress make sense."""
        return sys.stdout.isatty() and not self.json

    @property
    def console(self) -> Console:
        """A rich console on standard output, for tables; plain text when it is no terminal."""
        from rich.console import Console

        width = None if sys.stdout.isatty() else 160
        return Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=width)

    def place(self) -> Place:
        """Where state and downloads lie, with this command's `--home`."""
        from temper import api

        return api.place(home=self._home)

    def document(self, **content: Any) -> None:
        """Write the command's one JSON document: `schema`, `machine`, and what the command found."""
        from temper.machine import describe

        whole = {"schema": f"temper.{self.name}/1", "machine": describe(), **content}
        sys.stdout.write(json.dumps(whole, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell the person something that is not the result."""
        print(text, file=sys.stderr, flush=True)

    def error(self, error: TemperError) -> None:
        """Say what went wrong: in one line, or as the JSON document."""
        if self.json:
            self.document(
                error={"code": error.code, "message": error.message, "param": error.param, "hint": error.hint}
            )
        self.note(f"temper {self.name.replace('.', ' ')}: {' '.join(str(error).split())}")

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A progress bar for each thing that is reported; silent when nobody watches."""
        if not self.watched or not sys.stderr.isatty():
            yield lambda what, done, total: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def report(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total or None)
                bars.update(tasks[what], completed=done, total=total or None)

            yield report

    @contextmanager
    def counting(self) -> Iterator[Progress]:
        """As `progress`, for things that are counted instead of bytes; no total means that it is not known yet."""
        if not self.watched:
            yield lambda what, done, total: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, Any] = {}

            def report(what: str, done: int, total: int) -> None:
                if what not in tasks or bars.tasks[tasks[what]].finished:
                    tasks[what] = bars.add_task(what, total=total or None)
                bars.update(tasks[what], completed=done)

            yield report
