"""GPTQ: columns are rounded one after the other, and what each rounding loses is made up for by those not yet rounded.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
arXiv 2210.17323, algorithm 1 (Cholesky form; updates are put off, in halves of halves). With `act_order` the columns
whose inputs are largest go first; scales are chosen beforehand in the natural order, so that groups stay where they
are and no permutation has to be stored.

What few tokens show of K × K moments is chance for a good part, and making up for chance makes a layer worse on other
text: in Qwen2.5-Coder 1.5B, 4,096 tokens left twice the error of plain rounding in MLPs (docs/log.md). `shrinkage`
takes that part out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from temper.errors import Invalid
from temper.refine.quantize.grid import Float32, Grid, Quantized, choose_scales

TOGETHER: Final = 16
"""Inputs that are rounded one by one; more are halved, and what a half loses reaches the other in one product."""


def gptq(
    weight: Float32,
    hessian: NDArray[np.float64],
    grid: Grid,
    *,
    act_order: bool = True,
    damping: float = 0.01,
    shrinkage: float = 0.0,
) -> Quantized:
    """`weight` [N, K] on `grid`, so that outputs over inputs with second moments `hessian` [K, K] change least.

    `hessian` is the mean of x·xᵀ over the calibration inputs x of this layer. `shrinkage` (0 to 1) is the share taken
    from all that is off its diagonal; `damping` times its mean diagonal is added to the diagonal.

    Raises:
        Invalid: the hessian is not finite, or not positive even when damped.
    """
    num_inputs = weight.shape[1]
    diagonal = np.diag(hessian).copy()
    dead = diagonal == 0  # inputs that never fire: their weights do nothing
    weight = np.where(dead, 0, weight).astype(np.float32)
    scales, zeros = choose_scales(weight, grid, diagonal.astype(np.float32))
    order = np.argsort(-diagonal, kind="stable") if act_order else np.arange(num_inputs)
    upper = _inverse_factor(hessian, order, damping, shrinkage)
    size = grid.group or num_inputs
    # Inputs along the rows from here on, so that what is rounded together lies together.
    left = np.ascontiguousarray(weight.T[order])
    steps, middles = np.ascontiguousarray(scales.T), np.ascontiguousarray(zeros.T).astype(np.float32)
    inverses = np.where(steps == 0, 0, 1 / np.where(steps == 0, 1, steps))
    codes = np.empty(left.shape, np.uint8)

    def round_inputs(start: int, end: int) -> None:
        """Round inputs [start, end) and leave in `left`, in their place, what that loses."""
        if end - start > TOGETHER:
            middle = (start + end) // 2
            round_inputs(start, middle)
            left[middle:end] -= upper[start:middle, middle:end].T @ left[start:middle]
            round_inputs(middle, end)
            return
        for at in range(start, end):
            group = order[at] // size
            code = (np.rint(left[at] * inverses[group]) + middles[group]).clip(0, grid.top)
            codes[order[at]] = code
            left[at] = (left[at] - (code - middles[group]) * steps[group]) / upper[at, at]
            left[at + 1 : end] -= np.outer(upper[at, at + 1 : end], left[at])

    round_inputs(0, num_inputs)
    return Quantized(grid, np.ascontiguousarray(codes.T), scales, zeros)


def _inverse_factor(hessian: NDArray[np.float64], order: NDArray[np.intp], damping: float, shrinkage: float) -> Float32:
    """The upper U with Uᵀ·U the inverse of `hessian`, shrunk and damped, its inputs in `order`.

    From the last input to the first: with H = V·Vᵀ, V upper, U is V's inverse. Half the work of inverting H and
    factoring that.
    """
    if not np.isfinite(hessian).all():
        raise Invalid("the calibration inputs of a layer must be finite, but their second moments are not")
    backwards = order[::-1]
    damped = hessian[np.ix_(backwards, backwards)]  # the one copy: at 8,960 inputs it has 640 MB
    diagonal = np.einsum("ii->i", damped)  # a view
    kept = np.where(diagonal == 0, 1.0, diagonal)
    damped *= 1 - shrinkage
    diagonal[:] = kept + damping * kept.mean()
    lower, info = lapack.dpotrf(damped.T, lower=True, clean=True, overwrite_a=True)
    if info:
        raise Invalid(
            "the second moments of a layer's calibration inputs must be positive definite, but are not",
            hint="raise the damping, or calibrate on more text",
        )
    inverse, _ = lapack.dtrtri(lower, lower=True, overwrite_c=True)
    return np.ascontiguousarray(inverse[::-1, ::-1], np.float32)
