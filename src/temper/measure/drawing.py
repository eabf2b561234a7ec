"""Drawing figures into one HTML file: line charts, intervals and tables as inline SVG. No script, no network.

Knows no measurement: pages say what is drawn. Figures stand in a page as text and tables too, so nothing depends on
seeing colours.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 620, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 16, 44
COLOURS = ("#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#0e7490")
STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
table { display: block; overflow-x: auto; border-collapse: collapse; margin: 1rem 0;
  font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
figure { display: inline-block; margin: 1rem 1rem 1rem 0 } figcaption { font-weight: 600 }
svg { max-width: 100% } svg text { font: 12px system-ui, sans-serif; fill: currentColor }
.axis { stroke: currentColor; stroke-opacity: .35 } .grid { stroke: currentColor; stroke-opacity: .12 }
.doubt { border-left: 4px solid #c2410c; padding-left: .8rem } dt { font-weight: 600 }
"""

Point = tuple[float, float]
Line = tuple[str, list[Point]]


def document(title: str, parts: Sequence[str]) -> str:
    """The whole file."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{text(title)}</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def text(value: Any) -> str:
    """As HTML text."""
    return html.escape(str(value))


def definitions(words: Mapping[str, str]) -> str:
    """What the words of a page mean."""
    found = "".join(f"<dt>{text(name)}</dt><dd>{text(meaning)}</dd>" for name, meaning in words.items())
    return f"<h2>What the words mean</h2><dl>{found}</dl>"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows of cells; figures are rounded for reading."""
    top = "".join(f"<th>{text(name)}</th>" for name in head)
    body = ["<tr>" + "".join(f"<td>{text(shown(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<table><tr>{top}</tr>{''.join(body)}</table>"


def chart(title: str, x_label: str, y_label: str, lines: Sequence[Line], *, limits: Sequence[Line] = ()) -> str:
    """Lines from the origin on, each with its name beside it; empty where there are no points.

    `limits`: dashed, each in the colour of the line of its place.
    """
    points = [point for _, line in (*lines, *limits) for point in line]
    if not points:
        return ""
    x_top, y_top = _round_up(max(x for x, _ in points)), _round_up(max(y for _, y in points))
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(point: Point) -> str:
        x, y = point
        return f"{LEFT + inner_width * x / x_top:.1f},{TOP + inner_height * (1 - y / y_top):.1f}"

    drawn = []
    for step in range(5):
        x, y = LEFT + inner_width * step / 4, TOP + inner_height * (1 - step / 4)
        drawn.append(
            f'<line class="grid" x1="{LEFT}" x2="{LEFT + inner_width}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{y_top * step / 4:g}</text>'
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x_top * step / 4:g}</text>'
        )
    for number, (_, line) in enumerate(limits):
        path = " ".join(place(point) for point in line)
        dashed = f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="1.5" stroke-dasharray="5 4"'
        drawn.append(f'<polyline points="{path}" fill="none" {dashed}/>')
    for number, (label, line) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(point) for point in line)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(line) <= 20:
            drawn += [_dot(place(point), colour, f"{label}: {point[0]:g}, {point[1]:g}") for point in line]
        row = TOP + 8 + 18 * number
        drawn.append(
            f'<rect x="{WIDTH - RIGHT + 12}" y="{row - 8}" width="10" height="10" fill="{colour}"/>'
            f'<text x="{WIDTH - RIGHT + 27}" y="{row + 1}">{text(label)}</text>'
        )
    return (
        f"<figure><figcaption>{text(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {max(HEIGHT, TOP + 18 * len(lines) + 10)}" width="{WIDTH}" role="img" '
        f'aria-label="{text(title)}">{"".join(drawn)}'
        f'<text x="{LEFT + inner_width / 2}" y="{HEIGHT - 8}" text-anchor="middle">{text(x_label)}</text>'
        f'<text x="14" y="{TOP + inner_height / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {TOP + inner_height / 2})">{text(y_label)}</text></svg></figure>'
    )


def _dot(place: str, colour: str, said: str) -> str:
    x, y = place.split(",")
    return f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"><title>{text(said)}</title></circle>'


def _round_up(value: float) -> float:
    """The next 1, 2, 4, 5 or 8 times a power of ten: four grid steps of a plain number each."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next((lead * power for lead in (1, 2, 4, 5, 8) if lead * power >= value), 10 * power) if value > 0 else 1.0


def shown(value: Any) -> str:
    """A cell as people read it."""
    if value is None:
        return "–"
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < 10000 else str(value)
