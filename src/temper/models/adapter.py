"""LoRA adapters in PEFT's format, read without trusting them: a folder becomes low-rank updates of a model's weights.

`adapter_config.json` says how, `adapter_model.safetensors` holds the matrices. Everything that would change the
answer and that we do not do (DoRA, biases, whole modules beside the matrices, weights that training moved, …) is
refused by name. A config key that we do not know is let pass only where its value says "off".

The updates are in the order that this model's weights have: where a GGUF file has the rows of q and k permuted,
the rows of their B are permuted too. It knows no engine and no slots.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from temper.errors import CheckpointError, MalformedFile, NotFound
from temper.kernels.config import ModelConfig
from temper.kernels.lora import LowRank, linear_weights
from temper.kernels.stored import BLOCKS, StoredTensor
from temper.kernels.weights import dequantize
from temper.models import decoder
from temper.models.architectures import architecture
from temper.models.chat_template import ChatTemplate, template_beside
from temper.models.weights.safetensors import open_file

CONFIG_NAME: Final = "adapter_config.json"
WEIGHTS_NAME: Final = "adapter_model.safetensors"
MAX_CONFIG_BYTES: Final = 1 << 20
MAX_ALPHA: Final = 1 << 20

T = TypeVar("T")

_NAME = re.compile(r"base_model\.model\.(?P<module>[\w.]+)\.lora_(?P<side>[AB])\.weight", re.ASCII)
_PATTERN = re.compile(r"\^?[\w.]+", re.ASCII)

_READ: Final = frozenset(
    {"peft_type", "task_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias",
     "init_lora_weights", "target_modules"}
)  # fmt: skip
_OF_NO_EFFECT: Final = frozenset(
    {"base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode", "lora_dropout",
     "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "eva_config",
     "runtime_config"}
)  # fmt: skip
"""They say what was trained, and how. The tensors say what came of it."""
_PLAIN_STARTS: Final = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin that leave the model's own weights alone; others (PiSSA, OLoRA, LoftQ, …) train beside changed ones."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that fits a model."""

    updates: Mapping[str, LowRank]
    """Weight name → update, in the model's own order."""
    version: str
    """SHA-256 over all that it computes with: equal versions give equal answers."""
    rank: int
    """The largest of its ranks."""
    base_model: str
    """The model that it was trained on, as its config names it; empty where it does not."""
    template: ChatTemplate
    """By which it was taught: its folder's, or else the model's own."""

    @property
    def num_bytes(self) -> int:
        """Of all matrices."""
        return sum(update.num_bytes for update in self.updates.values())


@dataclass(frozen=True, slots=True)
class _Settings:
    """What the config says of sizes."""

    r: int
    alpha: float
    rslora: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    targets: tuple[str, ...] | None
    """Ends of module names; None where the config has a pattern or `all-linear`."""
    base_model: str

    def rank_of(self, module: str) -> int:
        """The rank of a module."""
        return _by_pattern(self.ranks, module, self.r)

    def scale_of(self, module: str, rank: int) -> float:
        """What its product is multiplied by."""
        alpha = _by_pattern(self.alphas, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def read_adapter(
    folder: Path, config: ModelConfig, template: ChatTemplate, *, max_rank: int, max_bytes: int
) -> Adapter:
    """The adapter in `folder`, made for a model of this `config` and `template`. All of it is in memory afterwards.

    Raises:
        NotFound: there is no such folder.
        CheckpointError: it is no adapter, does not fit the model, is larger than allowed, or needs what we have not.
        MalformedFile: a file breaks its format.
    """
    if not folder.is_dir():
        raise NotFound(
            f"there is no adapter folder '{folder}'", hint="give the folder that PEFT's save_pretrained wrote"
        )
    settings = _settings(_json(folder))
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise CheckpointError(
            f"'{folder}' has no {WEIGHTS_NAME}" + (", and pickles are not read" if pickled else ""),
            hint="save it with safe_serialization=True",
        )
    pairs = _pairs(path, open_file(path).tensors)
    num_bytes = sum(tensor.num_bytes for pair in pairs.values() for tensor in pair.values())
    if num_bytes > max_bytes:
        raise CheckpointError(f"an adapter may take {max_bytes} bytes, this one has {num_bytes}",
                              hint="raise lora.max_total_bytes, or train at a lower rank")  # fmt: skip
    model = architecture(config.architecture)
    shapes = model.tensor_shapes(config)
    weights = {name for op in model.program(config) for name in linear_weights(op)} - {decoder.EMBED}
    updates = {}
    for module, pair in sorted(pairs.items()):
        name = decoder.head_name(config) if module == "lm_head" else f"{module}.weight"
        if name not in weights and module != "lm_head":
            raise CheckpointError(
                f"the adapter changes '{module}', which is no linear layer of this {config.architecture} model",
                hint="it was trained on another model, or on parts that LoRA serving leaves alone",
            )
        updates[name] = _update(module, pair, shapes[name], settings, max_rank)
    if config.rope_interleaved:
        updates = {name: _interleaved(name, update, config) for name, update in updates.items()}
    return Adapter(
        updates=MappingProxyType(updates),
        version=_version(updates),
        rank=max(update.rank for update in updates.values()),
        base_model=settings.base_model,
        template=template if (own := template_beside(folder)) is None else template.instead(own),
    )


def adapter_version(folder: Path) -> str:
    """SHA-256 over the two files of an adapter folder: what stands for it where no model is loaded.

    Raises:
        NotFound: it is no adapter folder.
    """
    digest = hashlib.sha256()
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        path = folder / name
        if not path.is_file():
            raise NotFound(f"'{folder}' is no adapter: it has no {name}", hint="give a folder that PEFT wrote")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def base_model_of(folder: Path) -> str:
    """The model that an adapter says it was trained beside; empty where it does not.

    Raises:
        NotFound: there is no such folder.
        CheckpointError: it is no adapter.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no adapter folder '{folder}'", hint="give the folder that holds adapter_config.json")
    return _settings(_json(folder)).base_model


# -- the config ------------------------------------------------------------------------------------


def _json(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise CheckpointError(f"'{folder}' has no {CONFIG_NAME}", hint="give the folder that PEFT wrote")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise MalformedFile(f"{CONFIG_NAME} may have {MAX_CONFIG_BYTES} bytes, it has {path.stat().st_size}")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise MalformedFile(f"{CONFIG_NAME} must be JSON: {str(error)[:100]}", hint="save it again") from error
    if not isinstance(found, dict):
        raise MalformedFile(f"{CONFIG_NAME} must be a JSON object, got {type(found).__name__}", hint="save it again")
    return found


def _settings(raw: Mapping[str, Any]) -> _Settings:
    if raw.get("peft_type") != "LORA":
        _refuse("peft_type", raw.get("peft_type"), "must be 'LORA'")
    if raw.get("task_type") not in (None, "CAUSAL_LM"):
        _refuse("task_type", raw["task_type"], "must be 'CAUSAL_LM'")
    if raw.get("bias", "none") != "none":
        _refuse("bias", raw["bias"], "must be 'none': trained biases are not served")
    if raw.get("init_lora_weights", True) not in _PLAIN_STARTS:
        _refuse("init_lora_weights", raw["init_lora_weights"],
                "must leave the model's own weights alone; convert the adapter to plain LoRA first")  # fmt: skip
    for key, value in raw.items():
        if key not in _READ and key not in _OF_NO_EFFECT and value not in (None, False, [], {}, ""):
            _refuse(key, value, "must be off: it would change the answers, and is not served")
    r, alpha, rslora = raw.get("r", 8), raw.get("lora_alpha", 8), raw.get("use_rslora", False)
    if not isinstance(rslora, bool):
        _refuse("use_rslora", rslora, "must be true or false")
    targets = raw.get("target_modules")
    names = targets if isinstance(targets, list) else []
    if not isinstance(targets, list | str | None) or not all(isinstance(target, str) for target in names):
        _refuse("target_modules", targets, "must be a text or a list of texts")
    base = raw.get("base_model_name_or_path")
    return _Settings(
        r=_rank("r", r),
        alpha=_alpha("lora_alpha", alpha),
        rslora=rslora,
        ranks={key: _rank(f"rank_pattern.{key}", v) for key, v in _patterns(raw, "rank_pattern").items()},
        alphas={key: _alpha(f"alpha_pattern.{key}", v) for key, v in _patterns(raw, "alpha_pattern").items()},
        targets=tuple(targets) if isinstance(targets, list) else None,
        base_model=base if isinstance(base, str) else "",
    )


def _patterns(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = raw.get(key) or {}
    if not isinstance(found, dict):
        _refuse(key, found, "must be an object")
    for pattern in found:
        if not _PATTERN.fullmatch(pattern):
            _refuse(key, pattern, "must name modules plainly: regular expressions are not served")
    return found


def _by_pattern(patterns: Mapping[str, T], module: str, otherwise: T) -> T:
    """The value of the first pattern that is the module's name, or its end; PEFT's rule for plain names."""
    for pattern, value in patterns.items():
        plain = pattern.removeprefix("^")
        if module == plain or (plain == pattern and module.endswith(f".{plain}")):
            return value
    return otherwise


def _rank(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        _refuse(key, value, "must be a whole number of at least 1")
    return int(value)


def _alpha(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_ALPHA:
        _refuse(key, value, f"must be a number within ±{MAX_ALPHA}")
    return float(value)


def _refuse(key: str, value: Any, rule: str) -> None:
    raise CheckpointError(
        f"{CONFIG_NAME}: '{key}' {rule}, got {str(value)[:60]!r}", hint="this adapter cannot be served"
    )


# -- the tensors -----------------------------------------------------------------------------------


def _pairs(path: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, dict[str, StoredTensor]]:
    """The A and B of each module, still in the file."""
    found: dict[str, dict[str, StoredTensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise CheckpointError(
                f"{path.name}: '{name[:120]}' is no LoRA matrix of a linear layer",
                hint="adapters may hold lora_A and lora_B matrices only: no DoRA, embeddings, biases or saved modules",
            )
        found.setdefault(match["module"], {})[match["side"]] = tensor
    if not found:
        raise CheckpointError(f"{path.name} holds no matrices", hint="save the adapter again")
    for module, pair in found.items():
        if missing := sorted({"A", "B"} - set(pair)):
            raise CheckpointError(f"{path.name}: '{module}' has no lora_{missing[0]}", hint="save the adapter again")
    return found


def _update(
    module: str, pair: Mapping[str, StoredTensor], shape: tuple[int, ...], settings: _Settings, max_rank: int
) -> LowRank:
    a, b = pair["A"], pair["B"]
    rank = settings.rank_of(module)
    if settings.targets is not None and not any(module == t or module.endswith(f".{t}") for t in settings.targets):
        raise CheckpointError(
            f"the adapter changes '{module}', which target_modules does not name", hint="config and weights differ"
        )
    if rank > max_rank:
        raise CheckpointError(f"the rank of '{module}' is {rank}, at most {max_rank} are served",
                              hint="raise lora.max_rank, or train at a lower rank")  # fmt: skip
    n, k = shape
    for side, tensor, expected in (("A", a, (rank, k)), ("B", b, (n, rank))):
        if tensor.shape != expected:
            raise CheckpointError(
                f"lora_{side} of '{module}' must have shape {list(expected)}, found {list(tensor.shape)}",
                hint="it was trained on another model, or its config has another rank",
            )
        if tensor.format not in ("f32", "f16", "bf16"):
            raise CheckpointError(f"lora_{side} of '{module}' must be f32, f16 or bf16, found {tensor.format}",
                                  hint="save it in one of these")  # fmt: skip
    a, b = _copied(a), _copied(b)
    for side, tensor in (("A", a), ("B", b)):
        if not np.isfinite(dequantize(tensor)).all():
            raise CheckpointError(f"lora_{side} of '{module}' holds numbers that are not finite",
                                  hint="the training diverged: use an earlier checkpoint")  # fmt: skip
    return LowRank(a, b, settings.scale_of(module, rank))


def _copied(tensor: StoredTensor) -> StoredTensor:
    """In memory of its own: what is checked and hashed is what will be computed with."""
    return StoredTensor(tensor.name, tensor.format, tensor.shape, tensor.data.copy())


def _interleaved(name: str, update: LowRank, config: ModelConfig) -> LowRank:
    """With the rows of B in the order of a GGUF file: rotary pairs are neighbours in q and k."""
    heads = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return update
    b = update.b
    rows: NDArray[np.uint8] = b.data.reshape(heads, 2, config.head_dim // 2, b.shape[1] * BLOCKS[b.format][1])
    data = np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1)
    return LowRank(update.a, StoredTensor(b.name, b.format, b.shape, data), update.scale)


def _version(updates: Mapping[str, LowRank]) -> str:
    digest = hashlib.sha256()
    for name, update in sorted(updates.items()):
        said = [name, update.a.format, update.a.shape, update.b.format, update.b.shape, update.scale.hex()]
        digest.update(json.dumps(said).encode())
        digest.update(update.a.data.tobytes())
        digest.update(update.b.data.tobytes())
    return digest.hexdigest()
