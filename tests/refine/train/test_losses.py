"""The fused head is cross-entropy, to the last gradient; a loss is the same however rows are put together."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from temper.refine.train import head
from temper.refine.train.head import linear_cross_entropy


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_fused_head_is_cross_entropy(monkeypatch, learned, dtype, tolerance):
    monkeypatch.setattr(head, "FROZEN_ROWS", 5)
    monkeypatch.setattr(head, "LEARNED_ROWS", 7)
    torch.manual_seed(0)
    hidden = torch.randn(17, 24, dtype=dtype, requires_grad=True)
    weight = torch.randn(40, 24, requires_grad=learned)
    targets = torch.randint(40, (17,))
    found = linear_cross_entropy(hidden, weight, targets)
    (found / 3).backward()
    same = hidden.detach().float().requires_grad_()
    same_weight = weight.detach().clone().requires_grad_(learned)
    expected = cross_entropy(same @ same_weight.T, targets, reduction="sum")
    (expected / 3).backward()
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=0)
    torch.testing.assert_close(hidden.grad.float(), same.grad, rtol=tolerance, atol=tolerance)
    if learned:
        torch.testing.assert_close(weight.grad, same_weight.grad, rtol=tolerance, atol=10 * tolerance)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets), found)


def test_no_targets_are_no_loss() -> None:
    hidden, weight = torch.zeros(0, 8, requires_grad=True), torch.ones(11, 8, requires_grad=True)
    found = linear_cross_entropy(hidden, weight, torch.zeros(0, dtype=torch.int64))
    found.backward()
    assert float(found.detach()) == 0.0
    assert weight.grad is not None
    assert not weight.grad.any()
