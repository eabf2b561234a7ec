"""The rules of the house as tests. What import-linter can say is in pyproject.toml; this is the rest."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "src" / "temper"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "csrc").rglob("*.cpp")), *sorted((ROOT / "csrc").rglob("*.h"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MAX_LINES = 500
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "v2"}
COMPOSITION_ROOT = "api/environment.py"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def python(code: str) -> str:
    """Standard output of a fresh interpreter."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


# -- importing ---------------------------------------------------------------------------------------

WATCH = """
import os, sys, threading, importlib
broken = []

class Watched(type(os.environ)):
    def __getitem__(self, key):
        frame = sys._getframe(1)
        while frame and frame.f_code.co_filename.endswith(("os.py", "_collections_abc.py", "<frozen os>")):
            frame = frame.f_back
        if frame and "/temper/" in frame.f_code.co_filename:
            broken.append(f"{frame.f_code.co_filename} reads {key}")
        return super().__getitem__(key)

def audit(event, args):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen"):
        broken.append(event)
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if writes and "__pycache__" not in str(args[0]):
        broken.append(f"writes {args[0]}")

os.environ.__class__ = Watched
sys.addaudithook(audit)
"""
"""Notes whoever in our package reads the environment, and every socket, process and written file."""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_statement_of_a_module_acts(path):
    for node in ast.parse(path.read_text("utf-8")).body:
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.AsyncFor), (
            f"{name_of(path)}:{node.lineno} does something when imported"
        )


def test_importing_reads_no_environment_and_starts_nothing():
    extras = {"torch", "openvino"}  # what stands in these folders imports its extra, and is imported only to be built
    modules = [module_of(path) for path in MODULES if path.name != "__main__.py" and not extras & set(path.parts)]
    code = WATCH + f"for name in {modules!r}: importlib.import_module(name)\n"
    code += "broken += ['a thread'] * (threading.active_count() - 1)\nprint('\\n'.join(broken))"
    assert python(code).strip() == ""


def test_importing_temper_imports_little():
    loaded = python("import sys, temper; print(*sorted(m for m in sys.modules if m.startswith('temper')))").split()
    assert loaded == ["temper"]
    loaded = python("import sys, temper.profile.store; print(*{m.partition('.')[0] for m in sys.modules})").split()
    assert not {"numpy", "scipy", "fastapi", "uvicorn", "tokenizers", "torch", "jinja2", "rich"} & set(loaded)


def test_public_names_are_there():
    import temper

    for name in temper.__all__:
        assert getattr(temper, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = temper.nothing


def test_the_version_is_the_distribution_s():
    import temper

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (temper.__version__, "temper-llm") == (project["version"], project["name"])


# -- what is written where ---------------------------------------------------------------------------


def test_the_environment_is_read_in_the_composition_root_alone():
    allowed = {PACKAGE / COMPOSITION_ROOT}
    readers = [
        name_of(path)
        for path in MODULES
        if path not in allowed
        and re.search(r"\bos\.(environ|getenv|putenv)\b|from os import environ", path.read_text())
    ]
    assert readers == []


def test_nothing_is_unpickled():
    pattern = re.compile(r"^\s*(import|from) (pickle|cPickle|dill|cloudpickle|marshal|shelve|joblib)\b", re.MULTILINE)
    assert [name_of(path) for path in MODULES if pattern.search(path.read_text())] == []


def test_no_shell_and_no_eval():
    pattern = re.compile(r"shell\s*=\s*True|os\.system\(|(?<![\w.])(?:eval|exec)\(")
    assert [name_of(path) for path in MODULES if pattern.search(path.read_text())] == []


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=name_of)
def test_files_are_short_or_say_why_not(path):
    lines = path.read_text("utf-8").splitlines()
    head = " ".join(lines[:40])
    assert len(lines) <= MAX_LINES or "Long because" in head, (
        f"{len(lines)} lines; past {MAX_LINES} the file's top must say 'Long because …'"
    )


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_names_say_what_is_inside(path):
    words = {part.removeprefix("_").lower() for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not words & FORBIDDEN_NAMES


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Public functions and classes of a module, and public methods of public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for item in node.body:
                    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and not item.name.startswith("_"):
                        yield f"{node.name}.{item.name}", item


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_is_public_is_described(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree), "a module says what it does and what it does not know"
    for name, node in public_definitions(tree):
        if any(isinstance(item, ast.Name) and item.id == "overload" for item in getattr(node, "decorator_list", [])):
            continue
        if _is_protocol_member(tree, name):
            continue
        assert ast.get_docstring(node), f"{name} has no docstring"  # type: ignore[arg-type]


def _is_protocol_member(tree: ast.Module, name: str) -> bool:
    """Members of a Protocol may be described by the class."""
    owner = name.partition(".")[0]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner]
    return "." in name and any(
        isinstance(base, ast.Name) and base.id == "Protocol" for c in classes for base in c.bases
    )


def test_documentation_is_what_the_code_says_and_its_links_lead_somewhere():
    ran = subprocess.run(
        [sys.executable, ROOT / "tools" / "generate_docs.py", "--check"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_readme_s_tree_is_the_tree():
    tree = re.search(r"```\nsrc/temper/\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert tree is not None
    named = {line.split()[0].rstrip("/") for line in tree[1].splitlines() if line.startswith("  ")}
    there = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    there |= {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert named == there


def test_every_top_level_package_is_on_the_map():
    text = (ROOT / "docs" / "map.md").read_text("utf-8")
    for path in PACKAGE.iterdir():
        if (path.is_dir() and any(path.glob("*.py"))) or (path.suffix == ".py" and path.stem != "__init__"):
            assert f"`{path.stem}`" in text, f"{path.stem} is missing from docs/map.md"


def test_the_layers_on_the_map_are_the_layers_that_are_enforced():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [re.findall(r"temper\.(\w+)", layer) for layer in contracts[0]["layers"]]
    block = re.search(r"```\n(cli\n.*?)```", (ROOT / "docs" / "map.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    drawn = [re.findall(r"\w+", line.split("(")[0]) for line in block[1].strip().splitlines()]
    assert drawn == layers
