"""A command line that starts a server, as a profile section, and back.

`read_command` takes what a person types today: recognised flags become typed fields, everything else keeps its place
and spelling. `render` writes the words out again: the same ones where nothing was changed, a changed flag in its
place, a new one at the end. Nothing but `~` is expanded, nothing looked up or started.

A placeholder is `{name}` or `{name:spelling}`. A word that happens to look like one is kept with one more `{`.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from temper.errors import Invalid
from temper.profile.process import ProcessEngine
from temper.profile.servers import FLAGS, Flags
from temper.profile.servers.flags import Spelling, Value, read, spellings, write

PLACES = ("port", "host", "model", "api_key")
"""Placeholders that are no flags: filled in when the server is launched."""
LOOPBACK = "127.0.0.1"

_PLACEHOLDER = re.compile(r"(\{+)([a-z][a-z0-9_]*)(?::([^{}]*))?\}")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_SECRET = re.compile(r"token|key|secret|passw|credential", re.IGNORECASE)
_QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^'"\\]+""", re.DOTALL)
_OPERATORS = re.compile(r"[;|&<>()`]|\$[\w{(]")
_HOME = re.compile(r"(?:(?<=\s)|^)~(?=/|\s|$)")
_EXPANDED = re.compile(r"\$[\w{(]|`")
WRAPPERS = frozenset({"env", "nohup", "nice", "ionice", "numactl", "taskset", "stdbuf", "exec", "time", "chrt"})
"""Programs that may stand before a server: they start it in our process group and go away or pass signals on."""
ELSEWHERE = frozenset(
    {"docker", "podman", "nerdctl", "kubectl", "ssh", "srun", "sudo", "su", "setsid", "screen", "tmux"}
)
"""Programs whose child is not ours to watch."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A command line that was understood."""

    section: ProcessEngine
    kept: tuple[str, ...]
    """Words that no schema knows, in their order; they stay in the command as they are."""
    notes: tuple[str, ...]
    """What a person should know: what was left out, and why."""


@dataclass(frozen=True, slots=True)
class _Found:
    """An option on a command line: a flag of the schema, or one of `PLACES`."""

    name: str
    index: int
    """Of the word that holds the value: the option's own for switches and `--option=value`."""
    prefix: str
    """What stands before the value in that word."""
    text: str
    """The value as it is spelled; for a switch the option."""


# -- reading -----------------------------------------------------------------------------------------


def read_command(command: str | Sequence[str]) -> Imported:
    """The section that means the same as `command`: a line as typed into a shell, or its words.

    Raises:
        Invalid: it needs a shell, starts nothing that is known here, or starts it where it cannot be watched.
    """
    words = split(command) if isinstance(command, str) else list(command)
    for word in words:
        if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in word):
            raise Invalid("a command's words are text without NUL", param="command")
    environment, start = _environment(words)
    words = words[start:]
    kind, begin = _recognise(words)
    for word in words[begin:]:
        option = word.partition("=")[0]
        if option in kind.unsuitable:
            raise Invalid(f"{option} must be left out: {kind.unsuitable[option]}", param="command")
    notes: list[str] = []
    handed_on = tuple(name for name in environment if _SECRET.search(name))
    for name in handed_on:
        notes.append(f"the value of {name} was left out: it is taken from Temper's environment at each start")
    template = [_escaped(word) for word in words]
    taken = set(range(begin))
    flags: dict[str, Value] = {}
    model: str | None = None
    for found in _scan(words, kind, begin).values():
        placeholder: str | None = None
        if found.name in ("port", "host"):
            placeholder = _placeholder(found.name, None, found.text)
        elif found.name == "api_key":
            placeholder = "{api_key}"
            notes.append("the API key was left out: Temper makes a new one at each start")
            follower = words[found.index + 1 : found.index + 2]
            if kind.positional_model and follower and not follower[0].startswith("-"):
                raise Invalid(f"{words[found.index - 1]} must have one key", param="command", hint="leave one of them")
        elif found.name == "model":
            model, placeholder = found.text, "{model}"
        else:
            value = read(kind, found.name, found.text)
            if value is not None:
                placeholder = _placeholder(found.name, _plain(kind, found.name, value), found.text)
            if placeholder is not None and value is not None:
                flags[found.name] = value
        if placeholder is not None:
            template[found.index] = _escaped(found.prefix) + placeholder
            taken |= {found.index} if found.prefix or _is_switch(kind, found.name) else {found.index - 1, found.index}
    if model is None and (at := _positional_model(words, kind, begin, taken)) is not None:
        model, template[at] = words[at], "{model}"
        taken.add(at)
    section = _section(
        server=kind.server,
        command=tuple(template),
        flags=flags,
        model=model,
        environment={name: value for name, value in environment.items() if name not in handed_on},
        pass_environment=handed_on,
    )
    kept = tuple(word for index, word in enumerate(words) if index not in taken)
    return Imported(section, kept, tuple(notes))


def split(line: str) -> list[str]:
    """The words of a line, as a shell would take them apart.

    Raises:
        Invalid: a quote is not closed, or it asks a shell to do something.
    """
    line = line.strip().removeprefix("$ ")
    joined: list[str] = []
    pieces: list[str] = _QUOTED.findall(line)
    if sum(map(len, pieces)) != len(line):
        raise Invalid("a quote in the command line is not closed", param="command", hint="close it")
    for piece in pieces:
        if piece in ("\\\n", "\\\r"):
            continue  # a line that goes on
        if piece[0] not in "'\"\\" and (match := _OPERATORS.search(piece)):
            raise _needs_a_shell(match[0])
        if piece[0] == '"' and (match := _EXPANDED.search(re.sub(r"\\.", "", piece))):
            raise _needs_a_shell(match[0])
        if piece[0] not in "'\"\\":
            piece = _at_home(piece, begins=not joined or joined[-1][-1].isspace()).replace("\n", " ")
        joined.append(piece)
    words = shlex.split("".join(joined))
    if not words:
        raise Invalid("a command line must hold a command, but is empty", param="command")
    return words


def _at_home(piece: str, *, begins: bool) -> str:
    """`~` at the beginning of words as the home folder. `begins`: the piece is no rest of a word."""
    home = shlex.quote(str(Path.home()))
    return _HOME.sub(lambda match: match[0] if match.start() == 0 and not begins else home, piece)


def _needs_a_shell(sign: str) -> Invalid:
    return Invalid(
        f"'{sign}' asks for a shell, and Temper starts none",
        param="command",
        hint="give the one command that starts the server, with values in place of variables, or put it in quotes",
    )


def _environment(words: Sequence[str]) -> tuple[dict[str, str], int]:
    """The assignments before the command, and where it begins."""
    found: dict[str, str] = {}
    for index, word in enumerate(words):
        if not _ASSIGNMENT.match(word):
            return found, index
        name, _, value = word.partition("=")
        found[name] = value
    raise Invalid("there is no command behind the variables", param="command")


def _recognise(words: Sequence[str]) -> tuple[type[Flags], int]:
    """Whose command it is, and where its options begin."""
    for start in range(len(words)):
        for kind in FLAGS.values():
            for program in kind.programs:
                if _starts(words[start:], program):
                    _check_before(words[:start], program)
                    return kind, start + len(program)
    first = PurePath(words[0]).name
    known = ", ".join(" ".join(program) for kind in FLAGS.values() for program in kind.programs)
    if first in ELSEWHERE:
        raise _not_ours(first)
    raise Invalid(
        f"'{' '.join(words[:3])}' starts no server that is known here",
        param="command",
        hint=f'known are {known}; for another, write a profile with server = "other"',
    )


def _starts(words: Sequence[str], program: Sequence[str]) -> bool:
    if len(words) < len(program):
        return False
    first = PurePath(words[0]).name.removesuffix(".exe")
    return first == program[0] and list(words[1 : len(program)]) == list(program[1:])


def _check_before(before: Sequence[str], program: Sequence[str]) -> None:
    """What stands before a server's program must leave it ours to watch."""
    for word in before:
        name = PurePath(word).name
        if name in ELSEWHERE:
            raise _not_ours(name)
        variable = word.partition("=")[0]
        if _ASSIGNMENT.match(word) and _SECRET.search(variable):
            raise Invalid(
                f"the secret in {variable} must not get into a profile",
                param="command",
                hint="write the variables first, without 'env': then its value is left out",
            )
    first = PurePath(before[0]).name if before else ""
    allowed = first in WRAPPERS or first == "uv" or (program[0] == "-m" and first.startswith(("python", "pypy")))
    if before and not allowed:
        raise Invalid(
            f"'{first}' before a server is not understood",
            param="command",
            hint=f"give the server's own command; before it may stand {', '.join(sorted(WRAPPERS))}, python or uv run",
        )
    if not before and program[0] == "-m":
        raise Invalid("'-m' needs a python before it", param="command")


def _not_ours(name: str) -> Invalid:
    return Invalid(
        f"a server behind '{name}' cannot be watched: its processes are not children of Temper",
        param="command",
        hint="import the command that runs inside, or serve its URL with the engine kind 'openai'",
    )


def _names(kind: type[Flags]) -> dict[str, tuple[str, bool]]:
    """Every option's spelling: its flag or place, and whether it is a switch."""
    found: dict[str, tuple[str, bool]] = {}
    places = (kind.port_names, kind.host_names, kind.model_names, kind.key_names)
    for place, names in zip(PLACES, places, strict=True):
        found |= dict.fromkeys(names, (place, False))
    for spelling in spellings(kind).values():
        found |= dict.fromkeys((*spelling.names, *spelling.off), (spelling.field, spelling.is_switch))
    return found


def _scan(words: Sequence[str], kind: type[Flags], begin: int) -> dict[str, _Found]:
    """The options that the schema knows; of one that is repeated, the last, which is the one that counts."""
    names = _names(kind)
    found: dict[str, _Found] = {}
    index = begin
    while index < len(words):
        option, equals, inline = words[index].partition("=")
        if kind.underscores and option.startswith("--"):
            option = option.replace("_", "-")
        name, is_switch = names.get(option, ("", False))
        if name and is_switch and not equals:
            found[name] = _Found(name, index, "", option)
        elif name and not is_switch and equals and option.startswith("--"):
            found[name] = _Found(name, index, words[index][: len(option) + 1], inline)
        elif name and not is_switch and not equals and index + 1 < len(words) and words[index + 1] not in names:
            index += 1
            found[name] = _Found(name, index, "", words[index])
        index += 1
    return found


def _is_switch(kind: type[Flags], name: str) -> bool:
    return name in spellings(kind) and spellings(kind)[name].is_switch


def _positional_model(words: Sequence[str], kind: type[Flags], begin: int, taken: set[int]) -> int | None:
    """Where the model stands without an option: right after the program, or at the end."""
    if not kind.positional_model or begin >= len(words):
        return None
    if not words[begin].startswith("-"):
        return begin
    last = len(words) - 1
    after_value = last - 1 in taken or "=" in words[last - 1]
    return last if last > begin and last not in taken and after_value and not words[last].startswith("-") else None


def _placeholder(name: str, plain: str | None, text: str) -> str | None:
    """What stands for a value that is spelled `text`; None when that cannot be told."""
    if text == plain:
        return f"{{{name}}}"
    return None if "{" in text or "}" in text else f"{{{name}:{text}}}"


def _escaped(word: str) -> str:
    return _PLACEHOLDER.sub(lambda match: "{" + match[0], word)


def _section(**fields: Any) -> ProcessEngine:
    try:
        return ProcessEngine(**fields)
    except ValidationError as error:
        raise Invalid(
            f"the command cannot be put into a profile: {error.errors()[0]['msg']}", param="command"
        ) from None


# -- writing -----------------------------------------------------------------------------------------


def render(
    section: ProcessEngine,
    *,
    port: int | None = None,
    host: str | None = None,
    model: str | None = None,
    api_key: str | None = None,
) -> list[str]:
    """The words that start the server.

    What is given is filled in, and added where the command has no place for it; what is None stays as the imported
    command had it. `model` is where a fetched checkpoint lies.

    Raises:
        Invalid: a placeholder is not known, or nothing says what it stands for.
    """
    kind = type(section.flags)
    given: dict[str, str | None] = {
        "port": None if port is None else str(port),
        "host": host,
        "model": model if model is not None else section.model,
        "api_key": api_key,
    }
    flags: Mapping[str, Value] = section.flags.model_dump()
    words = _placed(list(section.command), kind, given, flags, _begin(section.command, kind))
    rendered: list[str] = []
    for word in words:
        filled = _filled(word, kind, given, flags)
        if filled is not None:
            rendered.append(filled)
        elif not _is_switch_word(word, kind) and rendered and "=" not in word.partition("{")[0]:
            rendered.pop()  # the option, whose value is gone
    return rendered


def _begin(words: Sequence[str], kind: type[Flags]) -> int:
    """Where the server's own options begin; behind the first word where its program goes by another name."""
    for start in range(len(words)):
        for program in kind.programs:
            if _starts(words[start:], program):
                return start + len(program)
    return 1


def _placed(
    words: list[str], kind: type[Flags], given: Mapping[str, str | None], flags: Mapping[str, Value], begin: int
) -> list[str]:
    """The words with a placeholder for each value that must be there: in place of a written one, or at the end."""
    there = {match[2] for word in words for match in _PLACEHOLDER.finditer(word) if match[1] == "{"}
    wanted = [name for name in flags if name not in there]
    wanted += [name for name in ("port", "host") if given[name] is not None and name not in there]
    written = _scan(words, kind, begin)
    options = {"port": kind.port_names, "host": kind.host_names}
    for name in wanted:
        if name in written:
            found = written[name]
            words[found.index] = f"{found.prefix}{{{name}}}"
        elif _is_switch(kind, name):
            words.append(f"{{{name}}}")
        else:
            names = options[name] if name in options else spellings(kind)[name].names
            if names:
                words += [names[0], f"{{{name}}}"]
    return words


def _filled(word: str, kind: type[Flags], given: Mapping[str, str | None], flags: Mapping[str, Value]) -> str | None:
    """A word with its placeholders filled in; None when it is to be left out."""
    parts: list[str] = []
    at = 0
    for match in _PLACEHOLDER.finditer(word):
        parts.append(word[at : match.start()])
        at = match.end()
        if len(match[1]) > 1:
            parts.append(match[0][1:])
            continue
        text = _stands_for(match[2], match[3], kind, given, flags)
        if text is None:
            return None
        parts.append(text)
    return "".join([*parts, word[at:]])


def _stands_for(
    name: str, spelling: str | None, kind: type[Flags], given: Mapping[str, str | None], flags: Mapping[str, Value]
) -> str | None:
    if name in PLACES:
        text = given[name] if given[name] is not None else spelling
        if text is None:
            raise Invalid(
                f"nothing says what {{{name}}} in the command stands for",
                param=f"engine.{name}",
                hint="give 'model' or 'checkpoint'" if name == "model" else None,
            )
        return text
    if name not in spellings(kind):
        known = [*PLACES, *spellings(kind)]
        raise Invalid(
            f"{{{name}}} in the command stands for nothing", param="engine.command", hint=_nearest(name, known)
        )
    if name not in flags:
        return None
    if spelling is not None and read(kind, name, spelling) == flags[name]:
        return spelling
    return _plain(kind, name, flags[name])


def _plain(kind: type[Flags], name: str, value: Value) -> str | None:
    """The plain spelling of a flag's value, of a switch the option itself; None where only silence says it."""
    spelling: Spelling = spellings(kind)[name]
    if spelling.is_switch:
        return spelling.names[0] if value else spelling.off[0] if spelling.off else None
    return write(value)


def _is_switch_word(word: str, kind: type[Flags]) -> bool:
    match = _PLACEHOLDER.fullmatch(word)
    return match is not None and _is_switch(kind, match[2])


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {{{close[0]}}}?" if close else f"there are {', '.join(PLACES)} and the server's flags"


def shell_line(section: ProcessEngine) -> str:
    """The command as one would type it, variables first."""
    names = [*section.environment.items(), *((name, f"${name}") for name in section.pass_environment)]
    words = render(section, api_key="$API_KEY")
    assigned = [f"{name}={value if value.startswith('$') else shlex.quote(value)}" for name, value in names]
    return " ".join([*assigned, *(word if word == "$API_KEY" else shlex.quote(word) for word in words)])
