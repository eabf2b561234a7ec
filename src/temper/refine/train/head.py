"""Cross-entropy straight from hidden states, a few rows of logits at a time.

A vocabulary of 49,152 makes a row of logits of 200 KB: kept for all targets, with its softmax and its gradient, they
would be most of the memory of a step and much of its time. Here each chunk's gradient is made in the forward pass
while its logits are in cache, and nothing but the gradient of the hidden states (and of a head that learns) is kept.
The idea is that of Liger Kernel's fused linear cross entropy (arXiv 2410.10989).
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

FROZEN_ROWS: Final = 128
"""Rows at a time when the head does not learn: their logits stay in cache."""
LEARNED_ROWS: Final = 1024
"""Rows at a time when it does: each chunk adds to a gradient as large as the head."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows of -log softmax(hidden · weightᵀ)[target], in float32.

    Args:
        hidden: [R, H], in the format in which it is multiplied.
        weight: [V, H]
        targets: int64 [R]
    """
    found: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)
    return found


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        dtype = hidden.dtype
        small = weight.to(dtype)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        total = torch.zeros((), dtype=torch.float64)
        size = max(1, min(LEARNED_ROWS if needs_weight else FROZEN_ROWS, len(hidden)))
        products = torch.empty(size, len(weight), dtype=dtype)  # of one chunk, written anew by each
        logs = torch.empty(size, len(weight), dtype=torch.float32)
        with torch.autocast("cpu", enabled=False):
            for begin in range(0, len(hidden), size):
                rows, wanted = hidden[begin : begin + size], targets[begin : begin + size, None]
                logits, log_p = products[: len(rows)], logs[: len(rows)]
                torch.mm(rows, small.T, out=logits)
                torch.log_softmax(logits, dim=-1, dtype=torch.float32, out=log_p)
                total -= log_p.gather(1, wanted).sum(dtype=torch.float64)
                if grad_hidden is None and grad_weight is None:
                    continue
                log_p.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
                gradient = logits.copy_(log_p)
                if grad_hidden is not None:
                    torch.mm(gradient, small, out=grad_hidden[begin : begin + size])
                if grad_weight is not None:
                    grad_weight += gradient.T @ rows
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtype = weight.dtype
        return total.float()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden * grad.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * grad).to(ctx.dtype),
            None,
        )
