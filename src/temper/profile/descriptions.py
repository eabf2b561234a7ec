"""What the text under a field says, read from the source when somebody asks.

Pydantic would read it for every class at import (`use_attribute_docstrings`), which takes half of the schema's time
to load; only help, documentation and messages ever show it.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping
from functools import cache
from itertools import pairwise

from pydantic import BaseModel


def description(section: type[BaseModel], name: str) -> str:
    """The text under the field `name` of `section`, or of the class that it has the field from; empty when there is
    none."""
    for owner in section.__mro__:
        if name in inspect.get_annotations(owner):
            return _of_module(owner.__module__).get(owner.__qualname__, {}).get(name, "")
    return ""


@cache
def _of_module(module: str) -> Mapping[str, Mapping[str, str]]:
    """Field → text, for every class at the top of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: _texts(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _texts(node: ast.ClassDef) -> Mapping[str, str]:
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(node.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
