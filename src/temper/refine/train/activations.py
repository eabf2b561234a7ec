"""Activation checkpointing: whether layers keep what their backward pass needs, or compute it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def few_activations(model: Any) -> Iterator[None]:
    """Within, each layer keeps its input alone."""
    _set(model, True)
    try:
        yield
    finally:
        _set(model, False)


@contextmanager
def whole_activations(model: Any) -> Iterator[None]:
    """Inside `few_activations`: within, layers keep all again."""
    _set(model, False)
    try:
        yield
    finally:
        _set(model, True)


def _set(model: Any, few: bool) -> None:
    # Before and since transformers 5.40.
    if few:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    else:
        disable = getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable
        disable()
