"""Dated reports: what was measured, where, by which command and commit.

A report is Markdown for people with its data as JSON at the end, named `theme_machine-isa_date.md`: the name of a
CPU in a cloud does not say which generation it is.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temper.kernels import _native
from temper.kernels.native import available_isas
from temper.machine import describe

HERE = Path(__file__).parent


def commit() -> str:
    """The commit measured; `+changes` when the work tree differs from it."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")


def bandwidth(working_set_bytes: int, threads: int) -> float:
    """Measured read bandwidth over a working set of this size, bytes/s."""
    return _native.read_bandwidth(working_set_bytes, threads, 7)


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table; floats to three significant digits."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return str(value)

    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(cell(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def spread(ratios: Sequence[float]) -> str:
    """Ratios of several rounds as a cell: the median, and the range; a dash where there are none."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "–"


def _shown(arg: str) -> str:
    """As it is typed, with no paths of ours."""
    words = " ".join(Path(word).name.upper() if word.startswith("/") else word for word in arg.split(" "))
    return f'"{words}"' if " " in words else words


def write(theme: str, title: str, body: str, data: dict[str, Any]) -> Path:
    """Write the report and return its path. One report a theme, machine and day: a later run replaces it."""
    machine = describe()
    isa = available_isas()[0]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{machine['cpu']} {isa}".lower()).strip("-")
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    path = HERE / f"{theme}_{slug}_{today}.md"
    proof = Path(sys.argv[0]).stem.removeprefix("prove_")
    given = " ".join(_shown(arg) for arg in sys.argv[1:])
    command = f"make prove {proof}" + (f" ARGS='{given}'" if given else "")
    head = [
        f"# {title}",
        "",
        f"- date: {datetime.now(UTC).isoformat(timespec='minutes')}",
        f"- commit: `{commit()}`",
        f"- command: `{command}`",
        f"- machine: {machine['cpu']}, {machine['cores']} cores, {isa}",
        "",
    ]
    blob = json.dumps({"machine": machine} | data, indent=1)
    path.write_text(
        "\n".join(head) + "\n" + body + f"\n\n<details><summary>data</summary>\n\n```json\n{blob}\n```\n\n</details>\n"
    )
    print(f"wrote {path}")
    return path
