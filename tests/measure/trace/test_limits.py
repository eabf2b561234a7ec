from __future__ import annotations

import pytest

from temper.kernels.native import available_isas
from temper.measure.trace import limits


def test_seconds_at_least():
    found = limits.Limits(1e9, 1e10, 1e10, 1e9, "any", 2, 1)
    assert found.least_s(500_000_000, 10**10, 2 * 10**10, 10**9) == (0.5, 4.0)


@pytest.mark.parametrize("isa", available_isas())
def test_limits_of_this_machine(isa):
    found = limits.measure(isa, 1, 1 << 20)
    assert found.isa == isa
    peaks = (found.int8_operations_per_s, found.bf16_operations_per_s, found.f32_operations_per_s)
    assert min(found.read_bytes_per_s, *peaks) > 1e7


def test_an_unknown_isa_is_refused():
    with pytest.raises(ValueError, match="no kernel set 'mmx'"):
        limits.measure("mmx", 1, 1 << 20)
