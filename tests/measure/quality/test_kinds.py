from __future__ import annotations

import pytest

from temper.errors import Invalid, MissingExtra, NotFound, Unsupported
from temper.measure.quality.kinds import KINDS, Needs, find
from tests.measure.quality.answering import AnsweringEngine


@pytest.mark.parametrize("name", KINDS)
def test_a_suite_goes_by_its_name(name):
    engine = AnsweringEngine(lambda request: "x")
    try:
        suite = find(name, Needs(engine, engine))
    except (MissingExtra, Unsupported) as error:
        pytest.skip(str(error))
    assert suite.name == name
    assert suite.metrics


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.compares])
def test_what_compares_needs_another(name):
    with pytest.raises(Invalid, match="--against"):
        find(name)


def test_a_name_that_is_not_there_names_the_nearest():
    with pytest.raises(NotFound, match="did you mean 'arithmetic'"):
        find("arithmetics")
