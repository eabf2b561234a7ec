"""Write the pages that say what the code says: docs/cli.md and docs/profiles.md.

With `--check` nothing is written; the exit code is 1 when a page is not what it should be, or when a link
in the documentation leads nowhere. `make docs` writes, `make check` checks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic_core import PydanticUndefined

from temper.cli.app import COMMANDS, temper
from temper.profile.presets import describe_preset, preset_names, preset_text, task_preset, task_presets
from temper.profile.walk import Field, fields

ROOT = Path(__file__).parent.parent
WIDTH = 100
NOTE = "<!-- Written by tools/generate_docs.py (`make docs`): change the code, not this page. -->"


def cli_page() -> str:
    """Every command's `--help`."""
    parts = [
        "# The command line",
        NOTE,
        "Every command is thin: it parses, calls the SDK (`temper.api`) and prints. With `--json`, standard output "
        "holds exactly one JSON document with the keys `schema` (its name and version) and `machine`; progress, logs "
        "and errors go to standard error. Exit codes: 0 done or passed, 1 failed, 2 wrong usage, 3 inconclusive.",
    ]
    for path, command in commands():
        parts.append(f"## {path}\n\n```text\n{help_text(path, command)}\n```")
    return "\n\n".join(parts) + "\n"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, groups before their members."""
    yield "temper", temper
    context = click.Context(temper, info_name="temper")
    for name in COMMANDS:
        command = temper.get_command(context, name)
        assert command is not None
        yield f"temper {name}", command
        if isinstance(command, click.Group):
            for child in sorted(command.commands):
                yield f"temper {name} {child}", command.commands[child]


def help_text(path: str, command: click.Command) -> str:
    """A command's help at a fixed width, so that it does not depend on a terminal."""
    context = click.Context(
        command, info_name=path, terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=["-h", "--help"]
    )
    return command.get_help(context).rstrip()


def profiles_page() -> str:
    """Every field of the schema, and every preset."""
    parts = [
        "# Profiles",
        NOTE,
        "A profile is one TOML file that says everything about a deployment: which checkpoint, how it is computed, who "
        "is let in, how it is sampled. Whatever is left out has the default below. An unknown field is an error that "
        "names the nearest known one. Host, port, keys and folders are not part of it: they belong to a place.",
        "A profile is named by preset, by file, or by model (then it is the `default` preset with that checkpoint); "
        "any field can be changed on the way with `--set`, by its path or any unambiguous end of it:",
        "```console\ntemper profile show edge > mine.toml\ntemper serve mine.toml --set max_sequences=16\n```",
        "Its version id is the SHA-256 of its canonical JSON: keys sorted, defaults filled in, `auto` kept as `auto`, "
        "and the checkpoint replaced by the hash of its manifest.",
        "## Deployment presets",
    ]
    for name in preset_names():
        body = "\n".join(line for line in preset_text(name).splitlines() if not line.startswith("#")).strip()
        parts.append(f"### {name}\n\n{describe_preset(name)}\n\n```toml\n{body}\n```")
    parts += [
        "## Task presets",
        "Chosen by name in a request (`preset`), in a profile (`engine.sampling.preset`), or with `--preset`. What the "
        "request or the profile says itself wins over the preset.",
        task_table(),
        "## Fields",
        "*Tunable* fields are those that a study may vary; ↻ marks those that need a new engine process.",
    ]
    for title, group in sections():
        parts.append(f"### {title}\n\n{field_table(group)}")
    return "\n\n".join(parts) + "\n"


def task_table() -> str:
    """One row a task preset."""
    rows = ["| preset | for | sampling |", "|---|---|---|"]
    for name in task_presets():
        preset = task_preset(name)
        values = {**preset.sampling.model_dump(exclude_none=True), "max_tokens": preset.max_tokens}
        shown = ", ".join(f"`{key}` {value}" for key, value in values.items() if value is not None)
        rows.append(f"| `{name}` | {preset.description} | {shown} |")
    return "\n".join(rows)


def sections() -> Iterator[tuple[str, list[Field]]]:
    """Fields grouped as they stand in a file: by table and kind of engine."""
    groups: dict[tuple[str, str | None, str | None], list[Field]] = {}
    for field in fields():
        groups.setdefault((field.path.rpartition(".")[0], field.kind, field.server), []).append(field)
    for (table, kind, server), group in groups.items():
        suffix = f', `kind = "{kind}"`' if kind and kind != "native" else ""
        suffix += f', `server = "{server}"`' if server else ""
        yield (f"`[{table}]`{suffix}" if table else "At the top"), group


def field_table(group: list[Field]) -> str:
    """One row a field."""
    rows = ["| field | value | default | |", "|---|---|---|---|"]
    for field in group:
        default = "must be given" if field.default is PydanticUndefined else f"`{toml(field.default)}`"
        mark = field.tunable
        tunable = ""
        if mark is not None:
            span = ", ".join(map(toml, mark.choices)) or f"{mark.low:g} … {mark.high:g}"
            tunable = f" *Tunable: {span}{' (log)' if mark.scale == 'log' else ''}{' ↻' if mark.restart else ''}.*"
        rows.append(
            f"| `{field.name}` | {field.rule} | {default if field.default is not None else ''} | "
            f"{' '.join(field.description.split())}{tunable} |"
        )
    return "\n".join(rows)


def toml(value: object) -> str:
    """A value as one writes it in TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def broken_links(root: Path = ROOT) -> list[str]:
    """Relative links in the documentation that lead nowhere, headings included."""
    broken = []
    for page in documents(root):
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, heading = target.partition("#")
            aim = (page.parent / name).resolve() if name else page
            if not aim.exists():
                broken.append(f"{page.relative_to(root)}: {target} does not exist")
            elif heading and aim.suffix == ".md" and heading not in anchors(aim.read_text("utf-8")):
                broken.append(f"{page.relative_to(root)}: {target} names no heading")
    return broken


def documents(root: Path) -> list[Path]:
    """Every Markdown page of the project."""
    return [*sorted(root.glob("*.md")), *sorted(root.glob("docs/**/*.md")), *sorted(root.glob("examples/*.md"))]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


PAGES = {"docs/cli.md": cli_page, "docs/profiles.md": profiles_page}


def main(check: bool) -> int:
    """Write or check every page."""
    failed = False
    for name, write in PAGES.items():
        path, text = ROOT / name, write()
        if check:
            # Compared word by word: how help is wrapped varies between releases of click.
            if not path.is_file() or path.read_text("utf-8").split() != text.split():
                print(f"{name} is not what the code says: run `make docs`")
                failed = True
        else:
            path.write_text(text, "utf-8")
    for problem in broken_links():
        print(problem)
        failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
