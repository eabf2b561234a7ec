"""What the engine asks of a chat template, a checkpoint's or an adapter's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from temper.types import Message


class ChatTemplate(Protocol):
    """What the engine asks of a checkpoint's chat template."""

    @property
    def source(self) -> str:
        """The template itself."""

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as the model was taught to read it."""
