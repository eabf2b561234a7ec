"""The table of kinds: built-ins, kinds of other packages, and clear errors."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest

from temper.engines import kinds
from temper.engines.base import Engine
from temper.engines.fake import FakeEngine
from temper.errors import ProfileError
from temper.profile import schema

CONTEXT = kinds.Context(cache_dir=Path("/nowhere"), home=Path("/nowhere"))


class Foreign(schema.Section):
    kind: Literal["foreign"] = "foreign"


def foreign(section: schema.Section, context: kinds.Context) -> Engine:
    return FakeEngine(schema.FakeEngine(script="fixed:foreign"), context)


def test_a_profile_becomes_its_engine():
    profile = schema.Profile(engine=schema.FakeEngine(script="count"))
    assert isinstance(kinds.build(profile, context=CONTEXT), FakeEngine)


def test_native_runs_behind_a_worker_or_in_process():
    from temper.engines.native.engine import NativeEngine
    from temper.engines.native.remote import WorkerEngine

    assert isinstance(kinds.build_section(schema.NativeEngine(), CONTEXT), WorkerEngine)
    assert isinstance(kinds.build_section(schema.NativeEngine(in_process=True), CONTEXT), NativeEngine)


def test_other_packages_add_kinds(monkeypatch: pytest.MonkeyPatch):
    entry = EntryPoint("foreign", f"{__name__}:foreign", kinds.GROUP)
    monkeypatch.setattr(kinds, "entry_points", lambda group: [entry])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    assert isinstance(kinds.build_section(Foreign(), CONTEXT), FakeEngine)


def test_an_unknown_kind_names_the_nearest():
    class Near(schema.Section):
        kind: Literal["natve"] = "natve"

    with pytest.raises(ProfileError, match="did you mean 'native'"):
        kinds.build_section(Near(), CONTEXT)


def test_a_broken_package_is_named(monkeypatch: pytest.MonkeyPatch):
    entry = EntryPoint("foreign", "no.such.module:thing", kinds.GROUP)
    monkeypatch.setattr(kinds, "entry_points", lambda group: [entry])
    with pytest.raises(ProfileError, match=r"cannot be loaded from 'no\.such\.module:thing'"):
        kinds.build_section(Foreign(), CONTEXT)


def test_naming_a_kind_imports_no_engine():
    program = "import sys, temper.engines.kinds as k; k.kinds(); print([m for m in sys.modules if '.engines.' in m])"
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert found.stdout.strip() == "['temper.engines.base', 'temper.engines.context', 'temper.engines.kinds']"
