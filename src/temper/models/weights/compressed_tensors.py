"""Reads weights packed by compressed-tensors (llm-compressor, vLLM) as the quantized blocks that our kernels compute.

Integer weights of 3, 4 or 8 bits with a scale per group or per row, as `pack-quantized` or `int-quantized` files hold
them, become q4_0, q4_1 or q8_0: the same codes, with the scale of a larger group repeated in each block of 32. Nothing
is rounded: a scale or a zero that a block cannot hold exactly is refused.

Format: github.com/vllm-project/compressed-tensors (compressors/quantized_compressors).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from temper.errors import CheckpointError
from temper.kernels.stored import Format, StoredTensor

GROUP: Final = 32
"""Inputs in one of our blocks."""
_FORMATS: Final = ("pack-quantized", "int-quantized")
_PARTS: Final = (
    ".weight_packed", ".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx",
)  # fmt: skip

_INTEGERS: Final[dict[str, Any]] = {"i8": np.int8, "i32": np.uint32, "i64": np.int64}


@dataclass(frozen=True, slots=True)
class WeightScheme:
    """How linear layers are packed."""

    bits: int
    symmetric: bool
    packed: bool
    """Codes share 32-bit words; else each is an int8 of its own."""


@dataclass(frozen=True, slots=True)
class WeightSchemes:
    """The schemes of a checkpoint: one for all layers, or layers by name."""

    default: WeightScheme | None
    named: Mapping[str, WeightScheme]

    def of(self, layer: str) -> WeightScheme:
        """The scheme of one layer.

        Raises:
            CheckpointError: the config names none for it.
        """
        found = self.named.get(layer, self.default)
        if found is None:
            _refuse("config_groups", f"of a scheme for '{layer}', whose weight is packed", "none")
        return found


def weight_schemes(quantization: object) -> WeightSchemes:
    """The schemes that `quantization_config` of a config.json describes.

    Activations that are to be rounded to int8 as they come (W8A8) are allowed: our engines round them by their own
    rules, which are finer.

    Raises:
        CheckpointError: it is another method's, or uses what our blocks do not have.
    """
    raw = quantization if isinstance(quantization, Mapping) else {}
    if raw.get("quant_method") != "compressed-tensors":
        _refuse("quant_method", "'compressed-tensors'", raw.get("quant_method"))
    groups = raw.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        _refuse("config_groups", "an object with one group at least", groups)
    schemes: list[tuple[list[str], WeightScheme]] = []
    for group in groups.values():
        if not isinstance(group, Mapping):
            _refuse("config_groups", "an object of objects", group)
        _check_activations(group.get("input_activations"))
        targets = group.get("targets", ["Linear"])
        if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
            _refuse("targets", "a list of names", targets)
        schemes.append((targets, _scheme(group.get("weights"), group.get("format") or raw.get("format"))))
    if all(scheme == schemes[0][1] for _, scheme in schemes):
        return WeightSchemes(schemes[0][1], {})
    named: dict[str, WeightScheme] = {}
    default = None
    for targets, scheme in schemes:
        for target in targets:
            if target.startswith("re:"):
                _refuse("targets", "names of layers where there are several schemes", target)
            if target == "Linear":
                default = scheme
            else:
                named[target] = scheme
    return WeightSchemes(default, named)


def _scheme(scheme: object, format_: object) -> WeightScheme:
    if not isinstance(scheme, Mapping):
        _refuse("weights", "an object", scheme)
    for key, allowed in (("type", ("int",)), ("num_bits", (3, 4, 8)), ("strategy", ("group", "channel"))):
        if scheme.get(key) not in allowed:
            _refuse(f"weights.{key}", f"one of {', '.join(map(str, allowed))}", scheme.get(key))
    if format_ not in _FORMATS:
        _refuse("format", f"one of {', '.join(_FORMATS)}", format_)
    symmetric = bool(scheme.get("symmetric", True))
    if scheme["num_bits"] == 8 and not symmetric:
        _refuse("weights.symmetric", "true for 8 bits", False)
    return WeightScheme(int(scheme["num_bits"]), symmetric, format_ == "pack-quantized")


def _check_activations(activations: object) -> None:
    if activations is None:
        return
    told = activations if isinstance(activations, Mapping) else {}
    if (told.get("num_bits"), told.get("type"), told.get("dynamic")) != (8, "int", True):
        _refuse("input_activations", "null, or 8-bit integers that are dynamic", activations)


def unpack(tensors: Mapping[str, StoredTensor], schemes: WeightSchemes) -> dict[str, StoredTensor]:
    """The tensors with every packed weight as one quantized tensor under its plain name.

    Raises:
        CheckpointError: a part is missing, has another shape than the others say, or does not fit our blocks.
    """
    layers = [name.removesuffix(".weight_scale") for name in tensors if name.endswith(".weight_scale")]
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(_PARTS)}
    for layer in layers:
        scheme = schemes.of(layer)
        codes = f"{layer}{'.weight_packed' if scheme.packed else '.weight'}"
        if codes not in tensors:
            raise CheckpointError(f"tensor '{codes}' is missing beside its scales", hint="fetch it again")
        found[f"{layer}.weight"] = _Layer(layer, tensors, scheme).blocks()
    return found


class _Layer:
    """The parts of one linear layer."""

    def __init__(self, name: str, tensors: Mapping[str, StoredTensor], scheme: WeightScheme) -> None:
        self._name, self._tensors, self._scheme = name, tensors, scheme
        if f"{name}.weight_g_idx" in tensors:
            self._refuse("groups of neighbouring inputs", "an order of its own (weight_g_idx)")
        self._scales = self._numbers("weight_scale")
        if self._scales.ndim != 2:
            self._refuse("scales of shape [N, G]", list(self._scales.shape))

    def blocks(self) -> StoredTensor:
        """The layer's weight in our format."""
        codes = self._codes()
        rows, inputs = codes.shape
        num_groups = self._scales.shape[1]
        if self._scales.shape[0] != rows or inputs % GROUP or inputs % num_groups or inputs // num_groups % GROUP:
            self._refuse(f"scales for groups of a multiple of {GROUP} inputs", f"{list(codes.shape)} codes and "
                         f"{list(self._scales.shape)} scales")  # fmt: skip
        per_scale = inputs // num_groups // GROUP
        scales = np.repeat(self._half(self._scales), per_scale, axis=1)
        grouped = codes.reshape(rows, -1, GROUP)
        format_: Format
        if self._scheme.bits == 8:
            format_, parts = "q8_0", [_bytes(scales), grouped.astype(np.int8).view(np.uint8)]
        elif self._scheme.symmetric:
            format_, parts = "q4_0", [_bytes(scales), _nibbles(grouped + 8)]
        else:
            zeros = np.repeat(self._zeros(rows, num_groups), per_scale, axis=1)
            low = 1 << (self._scheme.bits - 1)
            minima = self._half((-low - zeros).astype(np.float32) * scales.astype(np.float32))
            format_, parts = "q4_1", [_bytes(scales), _bytes(minima), _nibbles(grouped + low)]
        data = np.concatenate(parts, axis=-1).reshape(-1)
        return StoredTensor(f"{self._name}.weight", format_, (rows, inputs), data)

    def _codes(self) -> NDArray[np.int32]:
        """Signed codes [N, K]."""
        if not self._scheme.packed:
            return self._integers("weight", "i8").astype(np.int32)
        rows, inputs = (int(extent) for extent in self._integers("weight_shape", "i32", "i64").reshape(-1)[:2])
        packed = self._integers("weight_packed", "i32")
        per_word = 32 // self._scheme.bits
        if packed.shape != (rows, -(-inputs // per_word)):
            self._refuse(f"{rows} × {inputs} codes, {per_word} in a word", f"words of shape {list(packed.shape)}")
        return self._unpacked(packed)[:, :inputs]

    def _zeros(self, rows: int, num_groups: int) -> NDArray[np.int32]:
        """Signed zeros [N, G]: packed along N, unlike the codes."""
        packed = self._integers("weight_zero_point", "i8", "i32")
        if packed.dtype == np.int8:
            return packed.astype(np.int32).reshape(rows, num_groups)
        zeros = self._unpacked(np.ascontiguousarray(packed.T)).T[:rows]
        if zeros.shape != (rows, num_groups):
            self._refuse(f"zeros of shape [{rows}, {num_groups}]", list(zeros.shape))
        return zeros

    def _unpacked(self, words: NDArray[Any]) -> NDArray[np.int32]:
        bits = self._scheme.bits
        shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
        codes = (words[..., None] >> shifts & np.uint32((1 << bits) - 1)).astype(np.int32)
        signed: NDArray[np.int32] = codes.reshape(words.shape[0], -1) - np.int32(1 << (bits - 1))
        return signed

    def _part(self, part: str) -> StoredTensor:
        name = f"{self._name}.{part}"
        if name not in self._tensors:
            raise CheckpointError(f"tensor '{name}' is missing", hint="the file is incomplete: fetch it again")
        return self._tensors[name]

    def _integers(self, part: str, *formats: Format) -> NDArray[Any]:
        """A part of integers; words of 32 bits come back unsigned."""
        tensor = self._part(part)
        if tensor.format not in formats:
            self._refuse(f"{part} of type {' or '.join(formats)}", tensor.format)
        values: NDArray[Any] = tensor.data.view(_INTEGERS[tensor.format])
        return values.reshape(tensor.shape)

    def _numbers(self, part: str) -> NDArray[np.float32]:
        tensor = self._part(part)
        if tensor.format == "bf16":
            values = (tensor.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif tensor.format in ("f16", "f32"):
            values = tensor.data.view(np.float16 if tensor.format == "f16" else np.float32).astype(np.float32)
        else:
            self._refuse(f"{part} of numbers", tensor.format)
        return values.reshape(tensor.shape)

    def _half(self, values: NDArray[np.float32]) -> NDArray[np.float16]:
        """The same numbers in float16."""
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            self._refuse("scales and zeros that float16 holds exactly", "some that it would round")
        return half

    def _refuse(self, rule: str, found: object) -> NoReturn:
        raise CheckpointError(
            f"the packed weight of '{self._name}' must have {rule}, found {found}",
            hint="serve it by the torch engine, or quantize it again with `temper refine quantize`",
        )


def _bytes(values: NDArray[np.float16]) -> NDArray[np.uint8]:
    """[N, G] halves as [N, G, 2] bytes."""
    return np.ascontiguousarray(values)[..., None].view(np.uint8)


def _nibbles(codes: NDArray[np.int32]) -> NDArray[np.uint8]:
    """[N, G, 32] codes as [N, G, 16] bytes, the first 16 codes in the low halves."""
    small = codes.astype(np.uint8)
    pairs: NDArray[np.uint8] = np.bitwise_or(small[..., :16], small[..., 16:] * np.uint8(16)).astype(np.uint8)
    return pairs


def _refuse(key: str, rule: str, found: object) -> NoReturn:
    raise CheckpointError(
        f"config.json: 'quantization_config.{key}' must be {rule}, got {str(found)[:80]!r}",
        hint="this kind of quantized checkpoint is not supported yet",
    )
