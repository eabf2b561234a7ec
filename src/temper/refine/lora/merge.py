"""An adapter added into the weights that it was trained beside: a checkpoint like any other, at no cost per token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from temper.errors import CheckpointError
from temper.kernels.lora import LowRank
from temper.kernels.weights import dequantize
from temper.models.adapter import adapter_version, read_adapter
from temper.models.manifest import Step, read_steps
from temper.refine.formats.folder import check_free
from temper.refine.network import Network
from temper.refine.telling import Tell

MAX_RANK: Final = 1 << 12
MAX_BYTES: Final = 64 << 30
"""Of an adapter that is merged: what serving bounds, merging need not."""


def merge(network: Network, adapter: Path, out: Path, *, weight: float, tell: Tell) -> Step:
    """Write `network` with `weight` times the adapter's updates added, and return what was done.

    Raises:
        Invalid: `out` is taken.
        NotFound, CheckpointError: the adapter is none, or does not fit the network.
    """
    check_free(out)
    checkpoint = network.checkpoint
    # The network has the rows of q and k in Hugging Face's order, wherever its file had them.
    plain = replace(checkpoint.config, rope_interleaved=False)
    found = read_adapter(adapter, plain, checkpoint.template, max_rank=MAX_RANK, max_bytes=MAX_BYTES)
    updates = found.updates
    network.use_template(found.template)
    parameters = dict(network.model.named_parameters())
    with torch.no_grad():
        for done, (name, update) in enumerate(sorted(updates.items())):
            tell("merging", done, len(updates))
            _check_head(name, network, parameters)
            parameters[name].add_(_product(update), alpha=weight)
    tell("merging", len(updates), len(updates))
    step = Step(
        recipe="merge",
        settings={"adapter": str(adapter), "adapter_sha256": adapter_version(adapter), "weight": weight},
        parent=checkpoint.manifest_hash(),
        parent_source=checkpoint.source,
        data_sha256=next((s.data_sha256 for s in reversed(read_steps(adapter)) if s.recipe == "lora"), None),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    network.save(out, step)
    return step


def _product(update: LowRank) -> torch.Tensor:
    """scale · B A, [N, K] in float32."""
    a, b = (dequantize(part).reshape(part.shape).astype(np.float32) for part in (update.a, update.b))
    return torch.from_numpy(update.scale * (b @ a))


def _check_head(name: str, network: Network, parameters: Mapping[str, Any]) -> None:
    """An update of a tied head would change the embeddings too, which the adapter does not."""
    if name not in parameters or (network.model.config.tie_word_embeddings and not name.startswith("model.layers.")):
        raise CheckpointError(
            f"the adapter changes '{name}', which this model shares with its embeddings",
            hint="serve the adapter beside the model instead, or train it without that layer",
        )
