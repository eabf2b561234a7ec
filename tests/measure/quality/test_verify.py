from __future__ import annotations

import os
import signal

import pytest

from temper.measure.quality.verify import Verifier

pytest.importorskip("sympy")


@pytest.fixture(scope="module")
def verifier():
    verifier = Verifier()
    yield verifier
    verifier.close()


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("2x+3", "3 + 2*x"),
        ("x = 5", "5"),
        (r"\frac{1}{2}", "0.5"),
        ("6√2", "6*sqrt(2)"),
        ("sin(3x)+3x*cos(3x)", "sin(3*x) + x*3*cos(3*x)"),
        ("$x^2+2x+1$", "(x+1)**2"),
        ("(x+1)(x-1)", "x**2 - 1"),
    ],
)
def test_equal_forms_are_right(verifier, given, right):
    assert verifier.equal(given, right)


@pytest.mark.parametrize(
    "given",
    ["x^2 + 1", "five", "", "__import__('os').system('id')", "9**9**9**9", "(lambda: 1)()", "x" * 600, "1/0", "x if x"],
)
def test_all_else_is_wrong(verifier, given):
    assert not verifier.equal(given, "x**2")


def test_a_worker_that_overruns_is_replaced():
    hasty = Verifier()
    assert hasty.equal("2*x", "x + x")
    assert hasty._worker is not None
    hasty._timeout_s = 0.1
    os.kill(hasty._worker.pid, signal.SIGSTOP)
    assert not hasty.equal("2*x", "x + x")
    assert hasty.num_undecided == 1
    hasty._timeout_s = 5.0
    assert hasty.equal("2*x", "x + x")  # by a new worker
    hasty.close()
