"""Charts as SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from temper.measure import drawing


def svg(figure: str) -> ElementTree.Element:
    found = re.search("<svg.*</svg>", figure)
    assert found is not None
    return ElementTree.fromstring(found.group())


def test_a_limit_is_dashed_in_the_colour_of_its_line_and_fits_in() -> None:
    lines = [("one", [(1.0, 2.0), (2.0, 3.0)]), ("two", [(1.0, 1.0)])]
    limits = [("one", [(1.0, 40.0), (2.0, 80.0)]), ("two", [(1.0, 9.0)])]
    drawn = svg(drawing.chart("t", "x", "y", lines, limits=limits)).findall("polyline")
    dashed = [line for line in drawn if "stroke-dasharray" in line.attrib]
    whole = [line for line in drawn if "stroke-dasharray" not in line.attrib]
    assert [line.attrib["stroke"] for line in dashed] == [line.attrib["stroke"] for line in whole]
    top = min(float(point.split(",")[1]) for point in dashed[0].attrib["points"].split())
    assert top == drawing.TOP  # 80 is the top of the axis


def test_names_are_text_and_no_markup() -> None:
    assert "<b>" not in drawing.chart("<b>", "<b>", "<b>", [("<b>", [(1.0, 1.0)])])


def test_nothing_is_drawn_of_nothing() -> None:
    assert drawing.chart("t", "x", "y", [("one", [])]) == ""
