"""A smaller network cut out of a larger one: fewer layers, or MLPs with fewer neurons.

Layers are judged by what their absence costs on examples, in rounds: after each round the rest is judged anew, because
two layers that are each dispensable seldom are together. Sources: SLEB (arXiv 2402.09025) for the judging of layers;
Minitron (arXiv 2407.14679) for that of neurons. Knows nothing of training.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from temper.errors import Invalid
from temper.refine.distill.recipe import StudentConfig
from temper.refine.network import Network
from temper.refine.telling import Tell
from temper.refine.train.attention import inputs, side_by_side
from temper.refine.train.batches import collate
from temper.refine.train.examples import Example
from temper.refine.train.losses import answer_loss

PER_BATCH = 8
"""Examples that are read together while something is judged."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What was taken away."""

    kept_layers: tuple[int, ...]
    """By their numbers in the teacher."""
    mlp_width: int
    rises: dict[int, float]
    """By how many nats a token the loss rose when a layer was left out, as last measured."""


def make_student(teacher: Network, config: StudentConfig, examples: Sequence[Example], tell: Tell) -> tuple[Any, Cut]:
    """A new model as `config` says; the teacher's stays as it is.

    Raises:
        Invalid: the student would be larger than its teacher.
    """
    settings = teacher.model.config
    num_layers, width = settings.num_hidden_layers, settings.intermediate_size
    for name, wanted, there in (("layers", config.layers, num_layers), ("mlp_width", config.mlp_width, width)):
        if wanted is not None and wanted > there:
            raise Invalid(f"a student is cut from its teacher, but student.{name} is {wanted} and the teacher has "
                          f"{there}", param=f"student.{name}", hint=f"give {there} at most")  # fmt: skip
    judged = examples[: config.examples]
    kept, rises = list(range(num_layers)), dict[int, float]()
    if config.layers is not None and config.layers < num_layers:
        if config.choose == "evenly":
            kept = evenly(num_layers, config.layers)
        else:
            kept, rises = _by_importance(teacher.model, config, judged, tell)
    model = copy.deepcopy(teacher.model)
    keep_layers(model, kept)
    if config.mlp_width is not None and config.mlp_width < width:
        _narrow(model, config.mlp_width, judged, tell)
    return model, Cut(tuple(kept), model.config.intermediate_size, rises)


def evenly(num_layers: int, wanted: int) -> list[int]:
    """`wanted` of so many layers, the first and the last among them, as far apart as can be."""
    if wanted == 1:
        return [0]
    return [round(at * (num_layers - 1) / (wanted - 1)) for at in range(wanted)]


def keep_layers(model: Any, kept: Sequence[int]) -> None:
    """Leave only these layers in `model`, in their order."""
    _put_layers(model, [model.model.layers[at] for at in kept])
    if (kinds := getattr(model.config, "layer_types", None)) is not None:
        model.config.layer_types = [kinds[at] for at in kept]
    if getattr(model.config, "max_window_layers", None) is not None:  # as many as there are, where none has a window
        model.config.max_window_layers = min(model.config.max_window_layers, len(kept))


def _put_layers(model: Any, layers: Sequence[Any]) -> None:
    for number, layer in enumerate(layers):
        layer.self_attn.layer_idx = number
    model.model.layers = torch.nn.ModuleList(layers)
    model.config.num_hidden_layers = len(layers)


def _by_importance(
    model: Any, config: StudentConfig, examples: Sequence[Example], tell: Tell
) -> tuple[list[int], dict[int, float]]:
    assert config.layers is not None
    all_layers, kinds = list(model.model.layers), getattr(model.config, "layer_types", None)
    kept, rises = list(range(len(all_layers))), dict[int, float]()
    total = len(kept) - config.layers
    try:
        while len(kept) > config.layers:
            whole = _loss(model, [all_layers[at] for at in kept], examples)
            found = {}
            for done, left_out in enumerate(kept):
                tell(f"judging layers, {total - len(kept) + config.layers} of {total} gone", done, len(kept))
                rest = [all_layers[at] for at in kept if at != left_out]
                found[left_out] = _loss(model, rest, examples) - whole
            go = sorted(found, key=lambda at: found[at])[: min(config.at_once, len(kept) - config.layers)]
            rises |= found
            kept = [at for at in kept if at not in go]
    finally:
        _put_layers(model, all_layers)
        if kinds is not None:
            model.config.layer_types = kinds
    return kept, rises


def _loss(model: Any, layers: Sequence[Any], examples: Sequence[Example]) -> float:
    """Nats a target with these layers alone."""
    _put_layers(model, layers)
    sums = [0.0, 0]
    with torch.inference_mode(), side_by_side(model):
        for begin in range(0, len(examples), PER_BATCH):
            batch = collate([Example(e.token_ids, e.learned) for e in examples[begin : begin + PER_BATCH]])
            sums[0] += float(answer_loss(model, batch).total)
            sums[1] += batch.num_targets
    return sums[0] / sums[1]


def _narrow(model: Any, width: int, examples: Sequence[Example], tell: Tell) -> None:
    """Keep the `width` neurons of each MLP that add most to the residual stream: |activation| · ‖column of down‖."""
    magnitudes: dict[int, torch.Tensor] = {}

    def watch(number: int) -> Any:
        def hook(module: Any, arguments: tuple[torch.Tensor, ...]) -> None:
            seen = arguments[0].detach().abs().sum(dim=(0, 1))
            magnitudes[number] = magnitudes.get(number, torch.zeros_like(seen)) + seen

        return hook

    layers = list(model.model.layers)
    hooks = [layer.mlp.down_proj.register_forward_pre_hook(watch(number)) for number, layer in enumerate(layers)]
    try:
        with torch.inference_mode(), side_by_side(model):
            for begin in range(0, len(examples), PER_BATCH):
                tell("judging neurons", begin, len(examples))
                model(**inputs(collate([Example(e.token_ids, e.learned) for e in examples[begin : begin + PER_BATCH]])),
                      logits_to_keep=1)  # fmt: skip
    finally:
        for hook in hooks:
            hook.remove()
    for number, layer in enumerate(layers):
        mlp = layer.mlp
        scores = magnitudes[number].clone() * mlp.down_proj.weight.detach().norm(dim=0)
        chosen = scores.topk(width).indices.sort().values
        with torch.no_grad():
            for linear, rows in ((mlp.gate_proj, True), (mlp.up_proj, True), (mlp.down_proj, False)):
                weight = linear.weight.detach()
                kept = (weight[chosen] if rows else weight[:, chosen]).clone()
                linear.weight = torch.nn.Parameter(kept)
                linear.out_features, linear.in_features = kept.shape
                if rows and linear.bias is not None:
                    linear.bias = torch.nn.Parameter(linear.bias.detach()[chosen].clone())
        if hasattr(mlp, "intermediate_size"):
            mlp.intermediate_size = width
    model.config.intermediate_size = width
