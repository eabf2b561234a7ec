from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from temper import api


def test_every_verb_is_where_the_type_checker_is_told_it_is():
    tree = ast.parse(Path(api.__file__).read_text("utf-8"))
    told = {
        name.name: statement.module
        for statement in ast.walk(tree)
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("temper.api.")
        for name in statement.names
    }
    assert {name: f"temper.api.{module}" for name, module in api._MODULE_OF.items()} == told
    assert sorted(told) == sorted(api.__all__)
    assert all(getattr(api, name) is not None for name in api.__all__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = api.nothing


def test_importing_it_imports_no_verb():
    listed = "import sys, temper.api; print(sorted(name for name in sys.modules if name.startswith('temper.api.')))"
    found = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
