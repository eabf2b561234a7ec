"""The layer is what plain torch makes of the same matrices, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from temper.refine.lora.layers import FourBitWeight, LoraLinear
from temper.refine.quantize.nf4 import dequantize_nf4, quantize_nf4


def made(four_bit: bool, dropout: float = 0.0, bias: bool = True) -> LoraLinear:
    torch.manual_seed(0)
    layer = LoraLinear(nn.Linear(24, 40, bias=bias), 4, 0.5, dropout, four_bit, torch.Generator().manual_seed(1))
    with torch.no_grad():
        layer.lora_B.normal_(generator=torch.Generator().manual_seed(2))
    return layer


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("four_bit", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_value_and_gradients_are_those_of_plain_torch(dropout, four_bit, bias):
    layer = made(four_bit, dropout, bias)
    x = torch.randn(2, 5, 24, requires_grad=True)
    torch.manual_seed(3)
    out = layer(x)
    out.square().sum().backward()
    found = [x.grad, layer.lora_A.grad, layer.lora_B.grad]

    same = x.detach().requires_grad_()
    a, b = (p.detach().requires_grad_() for p in (layer.lora_A, layer.lora_B))
    weight = layer.four_bit.dense(torch.float32) if layer.four_bit is not None else layer.weight
    torch.manual_seed(3)
    keep = (torch.rand(10, 24) >= dropout).view(2, 5, 24) / (1 - dropout)
    expected = nn.functional.linear(same, weight, layer.bias) + 0.5 * (same * keep) @ a.T @ b.T
    torch.testing.assert_close(out, expected)
    expected.square().sum().backward()
    for one, other in zip(found, (same.grad, a.grad, b.grad), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert layer.weight is None or layer.weight.grad is None
    layer.eval()
    torch.testing.assert_close(layer(x), nn.functional.linear(x, weight, layer.bias) + 0.5 * x @ a.T @ b.T)


@pytest.mark.parametrize("shape", [(40, 24), (64, 64), (7, 9)])
def test_four_bits_are_those_of_nf4(shape):
    weight = torch.randn(shape)
    codes, maxima = quantize_nf4(weight.numpy())
    found = FourBitWeight(weight).dense(torch.float32)
    assert torch.equal(found, torch.from_numpy(dequantize_nf4(codes, maxima, shape)))


def test_bfloat16_stays_bfloat16():
    layer = made(False).to(torch.bfloat16)
    layer.lora_A.data, layer.lora_B.data = layer.lora_A.data.float(), layer.lora_B.data.float()
    x = torch.randn(3, 24, dtype=torch.bfloat16, requires_grad=True)
    out = layer(x)
    out.float().sum().backward()
    assert (out.dtype, x.grad.dtype, layer.lora_A.grad.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
