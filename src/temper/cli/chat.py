"""`temper chat`: a conversation in the terminal.

The loop below is the whole program: read a line, run a command or ask the model, print what comes. Where
the answers come from (an engine in this process, or a server) is `talk`'s.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from temper import api
from temper.asking import OPTIONS, Reading
from temper.cli.command import command
from temper.cli.options import overrides, sampling, sampling_options, setting_options
from temper.cli.output import Output
from temper.cli.talk import LocalTalk, RemoteTalk, Talk
from temper.errors import Invalid, TemperError
from temper.profile import store
from temper.types import Delta, Message

HISTORY = "chat_history"
"""Lines typed, below `--home`."""


@dataclass
class Session:
    """One conversation and how it is sampled."""

    talk: Talk
    options: dict[str, Any]
    system: str | None = None
    turns: list[Message] = field(default_factory=list)

    def messages(self) -> list[Message]:
        """What is sent: the system message, then every turn."""
        return ([Message("system", self.system)] if self.system else []) + self.turns


@command()
@click.option("--model", "-m", "named", default=api.DEFAULT_PROFILE, show_default=True, help="A model or a profile.")
@click.option(
    "--url", help="Talk with a server instead, such as http://127.0.0.1:8000 ($TEMPER_API_KEY is shown to it)."
)
@click.option("--system", help="What the model is told before the conversation.")
@sampling_options
@setting_options
def chat(output: Output, named: str, url: str | None, system: str | None, **arguments: Any) -> None:
    """Talk with a model in the terminal.

    Ctrl-C stops an answer, Ctrl-D ends the program; /help lists what else there is. A line that ends in a
    backslash goes on in the next. With --json, each line of standard input is a turn, and the
    conversation is the document.
    """
    changes, options = overrides(arguments), sampling(arguments)
    where = output.place()
    if url is not None:
        talk: Talk = RemoteTalk(url, where.api_key)
    else:
        with output.progress() as progress:
            talk = LocalTalk(api.load(named, progress=progress, where=where, **changes))
    with talk:
        session = Session(talk, options, system)
        if sys.stdin.isatty() and not output.json:
            output.note(f"{talk.name} · /help for commands, Ctrl-D to leave")
        with _history(where.home / HISTORY):
            _converse(session, output)
        if output.json:
            output.document(model=talk.name, messages=[_plain(message) for message in session.messages()])


def _converse(session: Session, output: Output) -> None:
    """Read a line, act on it, until there are no more."""
    while True:
        line = _read_line(output)
        if line is None:
            return
        try:
            if line.startswith("/"):
                if not _act(session, line, output):
                    return
            elif line.strip():
                _ask(session, line, output)
        except TemperError as error:
            if output.debug:
                raise
            output.note(str(error))
            if not output.watched and not sys.stdin.isatty():
                raise


def _ask(session: Session, line: str, output: Output) -> None:
    """One turn: what came before an interrupt is kept as the answer."""
    session.turns.append(Message("user", line))
    reading, start, pieces = Reading(), time.perf_counter(), Pieces(output)
    events = session.talk.ask(session.messages(), session.options)
    try:
        for event in events:
            reading.take(event)
            if isinstance(event, Delta):
                pieces.show(event)
    except KeyboardInterrupt:
        pieces.end()
        output.note("(stopped)")
    except TemperError:
        pieces.end()
        session.turns.pop()
        raise
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()
    pieces.end()
    answer = reading.answer()
    session.turns.append(Message("assistant", answer.text, reasoning_content=answer.reasoning or None))
    if output.watched and reading.done is not None:
        seconds, tokens = time.perf_counter() - start, answer.usage.completion_tokens
        ending = "" if answer.finish_reason == "stop" else f" · {answer.finish_reason}"
        click.secho(f"{tokens} tokens, {tokens / seconds:.0f}/s{ending}", dim=True)


class Pieces:
    """Prints an answer piece by piece: thinking dim, and apart from the answer."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._channel = ""
        self._fresh_line = True

    def show(self, delta: Delta) -> None:
        """Print one piece. Thinking is for people: it is left out when nobody watches."""
        thinking = delta.channel == "reasoning"
        if self._output.json or not delta.text or (thinking and not self._output.watched):
            return
        if self._channel == "reasoning" and not thinking and not self._fresh_line:
            click.echo("\n")
        self._channel = delta.channel
        text = click.style(delta.text, dim=True) if thinking else delta.text
        sys.stdout.write(text)
        sys.stdout.flush()
        self._fresh_line = delta.text.endswith("\n")

    def end(self) -> None:
        """Leave the cursor at the beginning of a line."""
        if not self._fresh_line:
            click.echo()
            self._fresh_line = True


# -- commands ----------------------------------------------------------------------------------------


def _act(session: Session, line: str, output: Output) -> bool:
    """Run a /command; False when it ends the program."""
    word, _, rest = line[1:].partition(" ")
    if word in ("exit", "quit", "q"):
        return False
    if word not in ACTIONS:
        raise Invalid(
            f"there is no command '/{word}'", hint=f"there are {', '.join('/' + name for name in ACTIONS)}, /exit"
        )
    ACTIONS[word][1](session, rest.strip(), output)
    return True


def _help(session: Session, rest: str, output: Output) -> None:
    for name, (text, _) in ACTIONS.items():
        output.note(f"/{name:8} {text}")
    output.note("/exit     leave")


def _reset(session: Session, rest: str, output: Output) -> None:
    session.turns.clear()
    output.note("a new conversation")


def _system(session: Session, rest: str, output: Output) -> None:
    if rest:
        session.system = None if rest == "-" else rest
    output.note(f"system: {session.system or '(none)'}")


def _set(session: Session, rest: str, output: Output) -> None:
    if rest:
        name, value = store.parse_override(rest)
        if name not in OPTIONS:
            raise Invalid(f"there is no option '{name}'", param=name, hint="try temperature, top_p, max_tokens or seed")
        if value is None:
            session.options.pop(name, None)
        else:
            session.options[name] = value
    output.note(", ".join(f"{name}={value}" for name, value in session.options.items()) or "as the profile says")


def _save(session: Session, rest: str, output: Output) -> None:
    path = Path(rest or f"chat-{time.strftime('%Y%m%d-%H%M%S')}.json").expanduser()
    text = json.dumps({"messages": [_plain(message) for message in session.messages()]}, ensure_ascii=False, indent=2)
    path.write_text(text + "\n", "utf-8")
    output.note(f"saved to {path}")


def _undo(session: Session, rest: str, output: Output) -> None:
    del session.turns[-2:]
    output.note(f"{len(session.turns) // 2} turns left")


ACTIONS: dict[str, tuple[str, Callable[[Session, str, Output], None]]] = {
    "help": ("this list", _help),
    "reset": ("start a new conversation", _reset),
    "undo": ("take the last turn back", _undo),
    "system": ("show or set the system message; - removes it", _system),
    "set": ("show or set an option: /set temperature=0.7, /set seed=null", _set),
    "save": ("write the conversation to a JSON file", _save),
}
"""Command: what it does, and the function that does it."""


def _plain(message: Message) -> dict[str, str]:
    """A turn in OpenAI's shape."""
    plain = {"role": message.role, "content": message.content or ""}
    return plain | ({"reasoning_content": message.reasoning_content} if message.reasoning_content else {})


# -- typing ------------------------------------------------------------------------------------------


def _read_line(output: Output) -> str | None:
    """A line, or several joined by backslashes at their ends; None at the end of input."""
    typed = sys.stdin.isatty() and not output.json
    lines: list[str] = []
    while True:
        try:
            line = input(("… " if lines else "› ") if typed else "")
        except EOFError:
            return "\n".join(lines) if lines else None
        except KeyboardInterrupt:
            click.echo()
            lines.clear()
            continue
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line[:-1])


@contextmanager
def _history(path: Path) -> Iterator[None]:
    """Arrow keys and what was typed in earlier sessions, where the system has readline."""
    if not sys.stdin.isatty():
        yield
        return
    try:
        import readline
    except ImportError:  # not built into every Python; typing works without it
        yield
        return
    if path.is_file():
        readline.read_history_file(path)
    readline.set_history_length(2000)
    try:
        yield
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        readline.write_history_file(path)
        path.chmod(0o600)
