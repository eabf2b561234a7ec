"""Runs foreign Jinja templates within bounds of time and size.

Jinja's immutable sandbox keeps a template away from Python's inner life, but not from `'x' * 10**10` or
from loops without end. Here every loop step, call and operator looks at the clock, and whatever can grow
a value is checked before it grows. It knows nothing of chats.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import wraps
from typing import Any, ClassVar, Final, cast

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_SECONDS: Final = 5.0
"""A template that runs longer is stopped; real ones take milliseconds."""
MAX_CHARS: Final = 32 << 20
"""Longest text that a template may build."""
MAX_ITEMS: Final = 1 << 20
"""Longest list that a template may build."""
MAX_INT_BITS: Final = 4096

_deadline: ContextVar[float] = ContextVar("template_deadline")
_WIDE: Final = re.compile(r"\d{6}|\*")
_CONCAT: Final = "temper_concat"
_COUNTED: Final = "temper_counted"
_PADDING: Final = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "indent", "wordwrap", "batch", "slice"})


_UNUSED: Final = ("pprint", "urlize", "urlencode", "xmlattr", "filesizeformat", "random")
"""Filters for web pages and debugging: no chat template needs them, and each would need its own bound."""


class LimitExceeded(Exception):
    """A template went beyond its bounds."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox with bounds."""

    intercepted_binops: ClassVar[frozenset[str]] = frozenset({"+", "*", "**", "%"})  # type: ignore[misc]

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_printable, **options)
        self.concat = _join  # type: ignore[method-assign, assignment, unused-ignore]
        self.filters[_CONCAT] = _join
        self.filters[_COUNTED] = _counted
        self.filters["tojson"] = _to_json
        self.filters["string"] = lambda value: _join((value,))
        for name in _UNUSED:
            del self.filters[name]
        for name in ("replace", "join", "format", "sum", *_PADDING):
            if name in self.filters:
                self.filters[name] = _guarded(name, self.filters[name])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Run an arithmetic operator whose result has a bounded size."""
        _check_time()
        _check_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method; those of texts that can grow are checked first."""
        _check_time()
        owner = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)  # the sandbox wraps `format`
        if isinstance(owner, str):
            _check_growth(getattr(obj, "__name__", ""), (owner, *args), kwargs)
        return super().call(context, obj, *args, **kwargs)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        return _Bounding().visit(tree)  # type: ignore[no-any-return]


def render_bounded(template: jinja2.Template, variables: Mapping[str, Any]) -> str:
    """Render within `MAX_SECONDS` and `MAX_CHARS`.

    Raises:
        LimitExceeded: the template wants more.
    """
    token = _deadline.set(time.monotonic() + MAX_SECONDS)
    try:
        return _join(template.root_render_func(template.new_context(dict(variables))))
    except (RecursionError, MemoryError, OverflowError) as error:
        raise LimitExceeded(f"it ran into a {type(error).__name__}") from error
    finally:
        _deadline.reset(token)


class _Bounding(NodeTransformer):
    """Puts a counter around what every loop runs over, and bounds `~`, which Jinja does not let us intercept."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _COUNTED)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _CONCAT)


def _filtered(value: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, value), name, [], [], None, None, lineno=value.lineno)


def _check_time() -> None:
    if time.monotonic() > _deadline.get():
        raise LimitExceeded(f"it runs for more than {MAX_SECONDS:g} seconds")


def _counted(values: Any) -> Any:
    """`values`, looking at the clock at each step; things with a length keep it."""
    _check_time()
    if isinstance(values, str | list | tuple | dict | range) and len(values) <= 1000:
        return values  # cannot last long by itself: inner loops and calls look at the clock

    def steps() -> Iterator[Any]:
        for value in values:
            _check_time()
            yield value

    return steps()


def _printable(value: Any) -> Any:
    """Checks what a template prints before it becomes text."""
    if not isinstance(value, str):
        _check_expanded(value)
    return value


def _join(pieces: Iterable[Any]) -> str:
    """All pieces as one text."""
    parts: list[str] = []
    length = 0
    for piece in pieces:
        _check_time()
        part = str(_printable(piece))
        length += len(part)
        if length > MAX_CHARS:
            raise LimitExceeded(f"it builds a text of more than {MAX_CHARS} characters")
        parts.append(part)
    return "".join(parts)


def _check_operator(operator: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be too large."""
    if operator == "%":
        if isinstance(left, str):
            _check_growth("format", (left,), {})
        return
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_INT_BITS:
            raise LimitExceeded(f"it computes a number of more than {MAX_INT_BITS} bits")
        return
    if operator == "*" and isinstance(left, int):
        left, right = right, left
    times, added = (right, 0) if operator == "*" and isinstance(right, int) else (1, _size(right))
    if _size(left) * times + added > (MAX_CHARS if isinstance(left, str) else MAX_ITEMS):
        raise LimitExceeded(f"it builds a text or list of more than {MAX_CHARS} characters or {MAX_ITEMS} items")


def _check_growth(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse a call on a text (the first of `args`) whose result would be too large."""
    values = (*args, *kwargs.values())
    if name in ("format", "format_map") and _WIDE.search(str(args[0])):
        raise LimitExceeded("it formats with a width of six digits, or one that it computes")
    if name in _PADDING:
        places = args[0].count("\n") + args[0].count("\t") + 1 if isinstance(args[0], str) else 1
        width = max((abs(v) if isinstance(v, int) else _size(v) for v in values[1:]), default=0)
        if places * width > MAX_CHARS:
            raise LimitExceeded(f"it pads a text to more than {MAX_CHARS} characters")
    if name == "replace" and _size(args[0]) * (1 + max(map(_size, values[1:]), default=0)) > 4 * MAX_CHARS:
        raise LimitExceeded(f"it replaces in a text until it may hold more than {4 * MAX_CHARS} characters")
    if name == "join" and len(args) > 1 and isinstance(args[1], list | tuple):
        total = sum(_size(value) for value in args[1]) + _size(args[0]) * len(args[1])
        if total > MAX_CHARS:
            raise LimitExceeded(f"it joins more than {MAX_CHARS} characters")


def _guarded(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is checked like the method of the same name."""

    @wraps(inner)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        _check_time()
        texts = args[1:] if args and isinstance(args[0], jinja2.Environment | nodes.EvalContext | Context) else args
        if name == "join" and texts:
            separator = texts[1] if len(texts) > 1 else kwargs.get("d", "")
            items = list(texts[0])
            _check_growth("join", (str(separator), items), {})
            head = args[: len(args) - len(texts)]
            return inner(*head, items, *texts[1:], **kwargs)
        if name == "sum" and not all(isinstance(v, int | float) for v in (*texts[2:], kwargs.get("start", 0))):
            raise LimitExceeded("it sums what are no numbers")
        _check_growth(name, texts or ("",), kwargs)
        return inner(*args, **kwargs)

    return guarded


def _check_expanded(value: Any) -> None:
    """Refuse to print a nest of shared lists that would unfold to far more than it takes in memory."""
    left, stack = MAX_ITEMS, [value]
    while stack:
        here = stack.pop()
        left -= 1
        if not left % 4096:
            _check_time()
        if isinstance(here, dict):
            stack += here.keys()
            stack += here.values()
        elif isinstance(here, list | tuple):
            stack += here
        elif isinstance(here, str):
            left -= len(here) * MAX_ITEMS // MAX_CHARS
        if left < 0 or len(stack) > 2 * MAX_ITEMS:
            raise LimitExceeded(f"it prints a value of more than {MAX_ITEMS} items or {MAX_CHARS} characters")


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as chat templates expect it: not escaped for HTML, with spacing to choose."""
    _check_expanded(value)
    if (indent if isinstance(indent, int) else _size(indent)) > 64 or any(len(text) > 64 for text in separators or ()):
        raise LimitExceeded("it spaces JSON by more than 64")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict | bytes) else 1
