"""Refined checkpoints as Hugging Face folders: whole or not at all, with a record of what was done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from temper.errors import Invalid
from temper.models.checkpoint import Checkpoint
from temper.models.manifest import Step, write_steps

MAX_SHARD_BYTES: Final = 4 << 30
_METADATA: Final = {"format": "pt"}


def write_folder(
    folder: Path, checkpoint: Checkpoint, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], step: Step
) -> None:
    """Write `tensors` under the config, tokenizer and template of `checkpoint`, and append `step` to its history.

    The folder appears when it is whole; `folder` must not be there yet.

    Raises:
        Invalid: something is at `folder` already.
    """
    check_free(folder)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _write_weights(part, tensors)
    (part / "config.json").write_text(json.dumps(dict(config), indent=2), "utf-8")
    write_tokenizer(part, checkpoint)
    write_steps(part, [*checkpoint.manifest.steps, step])
    part.rename(folder)


def check_free(folder: Path) -> None:
    """Refuse to write over what is there.

    Raises:
        Invalid: something is.
    """
    if folder.exists():
        raise Invalid(f"a new checkpoint needs a new folder, but '{folder}' is there already", param="out",
                      hint="name another one, or move it away")  # fmt: skip


def write_tokenizer(folder: Path, checkpoint: Checkpoint) -> None:
    """tokenizer.json, its config with the template and the special tokens, and the recommended sampling."""
    tokenizer, special = checkpoint.tokenizer, checkpoint.tokenizer.special
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), "utf-8")
    texts = {
        name: tokenizer.token_text(token_id)
        for name, token_id in (
            ("bos_token", special.bos), ("eos_token", next(iter(special.eos), None)), ("pad_token", special.pad),
        )
        if token_id is not None
    }  # fmt: skip
    described = {"tokenizer_class": "PreTrainedTokenizerFast", **texts, "chat_template": checkpoint.template.source}
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2), "utf-8")
    generation: dict[str, Any] = {**checkpoint.generation}
    if special.eos:
        generation["eos_token_id"] = list(special.eos)
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2), "utf-8")


def _write_weights(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """One safetensors file, or several with an index."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, values in tensors.items():
        if size + values.nbytes > MAX_SHARD_BYTES and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = values.contiguous()
        size += values.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", _METADATA)
        return
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for file, shard in zip(names, shards, strict=True):
        save_file(shard, folder / file, _METADATA)
    index = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    total = sum(values.nbytes for values in tensors.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2)
    (folder / "model.safetensors.index.json").write_text(text, "utf-8")
