"""Chat templates: a conversation becomes the prompt text that the model was trained on.

Templates come with checkpoints, so they are foreign code and run bounded (`template_sandbox`). What they
see is what Hugging Face's `apply_chat_template` shows them. It knows nothing of token ids; the rendered
text already holds every special token, so encode it with `add_special_tokens=False`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.utils import Namespace

from temper.errors import CheckpointError, Invalid, MalformedFile, TemperError, Unsupported
from temper.models.template_sandbox import BoundedEnvironment, LimitExceeded, render_bounded
from temper.models.tokenizer import THINK_CLOSE, THINK_OPEN
from temper.types import Message

CHATML: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + (message['content'] or '') "
    "+ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For checkpoints that carry no template of their own."""
MAX_TEMPLATE_CHARS: Final = 1 << 20
TEMPLATE_NAME: Final = "chat_template.jinja"
"""Beside the weights of a model or an adapter, in Hugging Face's layout."""
_FORGETS_THINKING: Final = (
    "{%- set turns = namespace(shown=[]) -%}{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' and '" + THINK_CLOSE + "' in (message['content'] or '') -%}"
    "{%- set answer = message['content'].split('" + THINK_CLOSE + "')[-1].lstrip('\\n') -%}"
    "{%- set turns.shown = turns.shown + [dict(message, content=answer)] -%}"
    "{%- else -%}{%- set turns.shown = turns.shown + [message] -%}{%- endif -%}"
    "{%- endfor -%}{%- set messages = turns.shown %}"
)
"""Goes in front of a template: what it shows are the same turns without their thinking, as R1's own template does."""
_OPENS_THINKING: Final = "{% if add_generation_prompt %}{{ '" + THINK_OPEN + "\n' }}{% endif %}"
"""Goes behind a template, where its prompt for an answer ends."""


class ChatTemplate:
    """The template of a checkpoint. Immutable and safe to share between threads."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], *, tool_source: str | None = None) -> None:
        """`special_tokens`: texts under `bos_token`, `eos_token` …; `tool_source`: used when tools are given."""
        self.source = source
        self._tool_source = tool_source or source
        self._special = dict(special_tokens)

    @cached_property
    def knows_tools(self) -> bool:
        """Whether tool definitions reach the prompt."""
        return "tools" in jinja2.meta.find_undeclared_variables(_environment().parse(self._tool_source))

    @cached_property
    def knows_thinking(self) -> bool:
        """Whether the template deals with thinking in any way."""
        return THINK_CLOSE in self.source or THINK_OPEN in self.source

    def instead(self, source: str) -> ChatTemplate:
        """Another template over the same special tokens."""
        return ChatTemplate(source, self._special)

    def for_thinking(self, *, always: bool) -> ChatTemplate:
        """The template of a model that was taught to think on top of this one: earlier turns are shown without their
        thinking, and where it is `always` to think, the prompt opens it. One that knows thinking stays as it is."""
        if self.knows_thinking:
            return self
        source, tool_source = (
            _FORGETS_THINKING + given + (_OPENS_THINKING if always else "")
            for given in (self.source, self._tool_source)
        )
        return ChatTemplate(source, self._special, tool_source=tool_source)

    @cached_property
    def opens_thinking(self) -> bool:
        """Whether a plain question leaves the model inside an open `<think>`, as DeepSeek-R1's template does."""
        try:
            return ends_thinking(self.render((Message("user", "Hello"),)))
        except TemperError:
            return False

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> str:
        """The prompt for `messages`.

        `variables` reach the template as they are (`enable_thinking` and its like).

        Raises:
            Invalid: the template refuses or cannot render this conversation.
            Unsupported: a message carries media, or tools are given and the template has no place for them.
            CheckpointError: the template itself is broken or goes beyond its bounds.
        """
        if any(message.media for message in messages):
            raise Unsupported("this model's chat template takes text alone, got media", param="messages")
        if tools and not self.knows_tools:
            raise Unsupported(
                "this model's chat template has no place for tools", param="tools", hint="leave tools out"
            )
        shown: dict[str, Any] = {
            **self._special,
            **(variables or {}),
            "tools": [_plain(tool) for tool in tools] or None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "strftime_now": lambda form: now().strftime(form),
        }
        template = self._tool_template if tools else self._template
        try:
            # Templates want the arguments of earlier tool calls as an object (most) or as text (DeepSeek's).
            try:
                return self._run(template, {**shown, "messages": [_shown(m, parse=True) for m in messages]})
            except TypeError:
                return self._run(template, {**shown, "messages": [_shown(m, parse=False) for m in messages]})
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, jinja2.TemplateError) as error:
            raise Invalid(
                f"the model's chat template cannot render this conversation: {error}",
                param="messages",
                hint="check the roles and their order",
            ) from error

    def _run(self, template: jinja2.Template, shown: Mapping[str, Any]) -> str:
        try:
            return render_bounded(template, shown)
        except (LimitExceeded, SecurityError) as error:
            raise CheckpointError(
                f"the model's chat template was stopped: {error}", hint="the checkpoint is not to be trusted"
            ) from error

    @cached_property
    def _template(self) -> jinja2.Template:
        return _compiled(self.source)

    @cached_property
    def _tool_template(self) -> jinja2.Template:
        return self._template if self._tool_source is self.source else _compiled(self._tool_source)


def template_beside(folder: Path) -> str | None:
    """The source of the template that has a file of its own in `folder`; None where there is none.

    Raises:
        MalformedFile: the file is too large.
    """
    path = folder / TEMPLATE_NAME
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_TEMPLATE_CHARS:
        raise MalformedFile(
            f"{TEMPLATE_NAME} may have {MAX_TEMPLATE_CHARS} bytes at most, got {path.stat().st_size}",
            hint="the checkpoint is not to be trusted",
        )
    return path.read_text("utf-8", "replace")


def ends_thinking(prompt: str) -> bool:
    """Whether `prompt` ends right after an opened `<think>`, so that the answer begins with thinking."""
    return prompt.rstrip().endswith(THINK_OPEN)


def _shown(message: Message, *, parse: bool) -> dict[str, Any]:
    """A message as templates see it; fields that are not there are absent, not None."""
    shown: dict[str, Any] = {"role": message.role}
    shown["content"] = message.content if message.content is not None or message.tool_calls else ""
    if message.reasoning_content is not None:
        shown["reasoning_content"] = message.reasoning_content
    if message.name is not None:
        shown["name"] = message.name
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        shown["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": _arguments(c.arguments, parse)}}
            for c in message.tool_calls
        ]
    return shown


def _arguments(text: str, parse: bool) -> Any:
    try:
        found = json.loads(text) if parse else text
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text


def _plain(value: Any) -> Any:
    """A copy made of JSON types alone, so that a template reaches no object of ours."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or type(value) in (str, int, float, bool) else str(value)


def _compiled(source: str) -> jinja2.Template:
    if len(source) > MAX_TEMPLATE_CHARS:
        raise CheckpointError(
            f"a chat template may have {MAX_TEMPLATE_CHARS} characters at most, got {len(source)}",
            hint="the checkpoint is not to be trusted",
        )
    try:
        return _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError) as error:
        raise CheckpointError(
            f"the model's chat template is no valid Jinja: {error}", hint="the checkpoint is damaged"
        ) from error


def _environment() -> BoundedEnvironment:
    """Jinja set up as Hugging Face sets it up for chat templates."""
    environment = BoundedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["namespace"] = _SafeNamespace
    for name in ("lipsum", "cycler", "joiner"):
        del environment.globals[name]
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


class _SafeNamespace(Namespace):
    """A namespace without names that begin with an underscore, which would reach into Python."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace cannot hold '{name}'")
        super().__setitem__(name, value)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks answers for training; for a prompt its content stands as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body of the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
