"""A frozen linear layer with trained matrices beside it, as one operation with a gradient of its own.

Plain modules would read and write the output three times, keep the input twice, and cast the frozen weight at every
call. Here the product is added in place, the input is kept once, and the frozen weight lies in the format that it is
multiplied in, or on four bits, from which it is widened when it is needed and dropped again.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from temper.refine.quantize.nf4 import BLOCK, LEVELS, quantize_nf4

_PAIRS: Final = np.stack([np.repeat(LEVELS, 16), np.tile(LEVELS, 16)], axis=1)
"""[256, 2] the two weights of each packed byte, that of the high half first."""


class FourBitWeight(nn.Module):
    """A matrix as NF4 codes and block maxima."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        codes, maxima = quantize_nf4(weight.detach().float().numpy())
        self.shape = tuple(weight.shape)
        self.register_buffer("codes", torch.from_numpy(codes), persistent=False)
        self.register_buffer("maxima", torch.from_numpy(maxima), persistent=False)
        self.register_buffer("pairs", torch.from_numpy(_PAIRS), persistent=False)

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix that the codes stand for, [N, K]."""
        size = self.shape[0] * self.shape[1]
        values = embedding(self.codes.int(), self.pairs).reshape(-1)[:size]
        if size % BLOCK:
            values = values * self.maxima.repeat_interleave(BLOCK)[:size]
        else:
            values = (values.view(-1, BLOCK) * self.maxima[:, None]).view(-1)
        return values.view(self.shape).to(dtype)


class LoraLinear(nn.Module):
    """W x + bias + scale · B (A x). A and B are float32 parameters; W asks for no gradient."""

    def __init__(
        self, base: nn.Linear, rank: int, scale: float, dropout: float, four_bit: bool, generator: torch.Generator
    ) -> None:
        """A begins as PEFT's does, uniform within ±1/√K; B begins at zero, so that nothing changes at first."""
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.scale, self.dropout = scale, dropout
        self.weight = None if four_bit else base.weight.requires_grad_(False)
        self.four_bit = FourBitWeight(base.weight) if four_bit else None
        self.bias = None if base.bias is None else base.bias.requires_grad_(False)
        bound = base.in_features**-0.5
        begin = torch.empty(rank, base.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(begin)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """[…, K] → […, N] in the format of the frozen weight (that of `x` for four bits)."""
        dtype = x.dtype if self.weight is None else self.weight.dtype
        rows = x.reshape(-1, self.in_features).to(dtype)
        keep = None
        if self.training and self.dropout:
            keep = (torch.rand_like(rows, dtype=torch.float32) >= self.dropout).to(dtype) / (1 - self.dropout)
        weight = self.four_bit if self.weight is None else self.weight
        out: Tensor = _Product.apply(rows, weight, self.bias, self.lora_A, self.lora_B, self.scale, keep)
        return out.view(*x.shape[:-1], self.out_features)


def _dense(weight: Any, dtype: torch.dtype) -> Tensor:
    return weight.dense(dtype) if isinstance(weight, FourBitWeight) else weight


class _Product(torch.autograd.Function):
    """The layer over rows [M, K]; gradients for the rows, A and B."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Any, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, keep: Tensor | None
    ) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            small_a, small_b = a.to(x.dtype), b.to(x.dtype)
            out = linear(x, _dense(weight, x.dtype), bias)
            seen = x if keep is None else x * keep
            inner = seen @ small_a.T
            out.addmm_(inner, small_b.T, alpha=scale)
        # A dropped input is made again rather than kept beside the plain one.
        ctx.save_for_backward(x, keep, inner, small_a, small_b)
        ctx.weight, ctx.scale = weight, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, keep, inner, small_a, small_b = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            grad = grad.to(x.dtype)
            grad_inner = (grad @ small_b) * ctx.scale
            seen = x if keep is None else x * keep
            grad_a = (grad_inner.T @ seen).float()
            grad_b = (grad.T @ inner).float().mul_(ctx.scale)
            grad_x = None
            if ctx.needs_input_grad[0]:
                grad_x = grad @ _dense(ctx.weight, x.dtype)
                if keep is None:
                    grad_x.addmm_(grad_inner, small_a)
                else:
                    grad_x.addcmul_(grad_inner @ small_a, keep)
        return grad_x, None, None, grad_a, grad_b, None, None
