"""PowerSGD: gradients of matrices sent as two thin ones, what they lose kept for the next step.

Source: Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization",
arXiv 1905.13727, algorithm 2, with warm start and error feedback. Sums instead of means, because the loop weighs its
losses before. It knows no network: whoever makes one gives `add`, which sums a tensor over all processes in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Add = Callable[[Tensor], None]

_ERROR, _DIRECTIONS = "error.", "directions."


class PowerSgd:
    """What one process keeps between steps: its own error, and the directions that all share."""

    def __init__(self, rank: int, num_processes: int, after: int, seed: int) -> None:
        """`rank` of the approximation; the first `after` steps are sent whole, while gradients change most."""
        self._rank, self._num_processes, self._after, self._seed = rank, num_processes, after, seed
        self._errors: dict[int, Tensor] = {}
        self._directions: dict[int, Tensor] = {}

    def add(self, gradients: Sequence[Tensor], step: int, add: Add) -> None:
        """Put an approximation of the sum over all processes in place of each gradient, equal on all of them."""
        thin = [number for number, gradient in enumerate(gradients) if step >= self._after and self._pays(gradient)]
        whole = [gradient for number, gradient in enumerate(gradients) if number not in set(thin)]
        if whole:
            flat = torch.cat([gradient.reshape(-1) for gradient in whole])
            add(flat)
            for gradient, part in zip(whole, flat.split([g.numel() for g in whole]), strict=True):
                gradient.copy_(part.view_as(gradient))
        if not thin:
            return
        wanted = {number: self._with_error(number, gradients[number]) for number in thin}
        lefts = self._added({n: wanted[n] @ self._begin(n, wanted[n].shape[1]) for n in thin}, add)
        lefts = {number: torch.linalg.qr(left).Q for number, left in lefts.items()}
        rights = self._added({n: wanted[n].T @ lefts[n] for n in thin}, add)
        for number in thin:
            approximation = lefts[number] @ rights[number].T
            self._errors[number] = wanted[number].sub_(approximation, alpha=1 / self._num_processes)
            self._directions[number] = rights[number]
            gradients[number].copy_(approximation.view_as(gradients[number]))

    def state(self) -> dict[str, Tensor]:
        """All of it, for an exact resume."""
        kept = {f"{_ERROR}{number}": error for number, error in self._errors.items()}
        return kept | {f"{_DIRECTIONS}{number}": values for number, values in self._directions.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        for name, values in tensors.items():
            kept = self._errors if name.startswith(_ERROR) else self._directions
            kept[int(name.rpartition(".")[2])] = values

    def _pays(self, gradient: Tensor) -> bool:
        """Whether two thin matrices are half as large as the gradient, or less."""
        if gradient.ndim != 2:
            return False
        height, width = gradient.shape
        return bool(2 * self._rank * (height + width) <= height * width)

    def _with_error(self, number: int, gradient: Tensor) -> Tensor:
        error = self._errors.get(number)
        return gradient.clone() if error is None else error.add_(gradient)

    def _begin(self, number: int, width: int) -> Tensor:
        """The directions of the step before; at first random ones, the same on every process."""
        if number not in self._directions:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
            self._directions[number] = torch.randn(width, self._rank, generator=generator)
        return self._directions[number]

    def _added(self, parts: Mapping[int, Tensor], add: Add) -> dict[int, Tensor]:
        """The sums of all parts, in one message."""
        flat = torch.cat([part.reshape(-1) for part in parts.values()])
        add(flat)
        pieces = flat.split([part.numel() for part in parts.values()])
        return {n: piece.view_as(part) for (n, part), piece in zip(parts.items(), pieces, strict=True)}
