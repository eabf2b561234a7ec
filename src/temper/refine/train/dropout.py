"""Dropout on what attention and MLP add to the residual stream, put onto a model that was built without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from torch.nn.functional import dropout

from temper.errors import Invalid

SITES: Final = (".self_attn.o_proj", ".mlp.down_proj")
"""The last layer of each branch, in all architectures that we write."""


@contextmanager
def residual_dropout(model: Any, share: float) -> Iterator[None]:
    """Within, and while `model.training`, `share` of each branch's output is dropped and the rest scaled up.

    Raises:
        Invalid: the model has no such branches.
    """
    sites = [module for name, module in model.named_modules() if name.endswith(SITES)] if share else []
    if share and not sites:
        raise Invalid(f"dropout is put behind {' and '.join(SITES)}, and this model has none",
                      param="regularization.dropout", hint="set it to 0")  # fmt: skip
    hooks = [m.register_forward_hook(lambda module, _, out: dropout(out, share, module.training)) for m in sites]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
