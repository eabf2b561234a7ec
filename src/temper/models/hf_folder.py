"""The small files of a Hugging Face folder: config, tokenizer, template, generation defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import processors

from temper.errors import CheckpointError, MalformedFile
from temper.kernels.config import ModelConfig
from temper.kernels.stored import StoredTensor
from temper.models.chat_template import CHATML, ChatTemplate, template_beside
from temper.models.config import config_from_hf
from temper.models.manifest import STEPS_NAME
from temper.models.tokenizer import ByteStyle, SpecialIds, Tokenizer
from temper.models.weights import bitsandbytes, compressed_tensors

MAX_JSON_BYTES: Final = 256 << 20
_SPECIAL_NAMES: Final = ("bos_token", "eos_token", "pad_token", "unk_token")


class HfFolder:
    """Reads the files of `folder` on demand.

    Raises:
        CheckpointError: a file is missing or asks for what we do not have.
        MalformedFile: a file breaks its format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._raw = self._json("config.json")
        if not self._raw:
            raise CheckpointError(f"'{folder}' has no config.json", hint="give a Hugging Face folder or a .gguf file")
        self._tokenizer_raw = self._json("tokenizer_config.json")
        self.generation = self._json("generation_config.json")

    def config(self) -> ModelConfig:
        """The model's numbers."""
        return config_from_hf(self._raw)

    @property
    def quantized(self) -> bool:
        """Whether weights are packed, by whatever method."""
        return self._raw.get("quantization_config") is not None

    def unpacked(self, tensors: Mapping[str, StoredTensor]) -> Mapping[str, StoredTensor]:
        """The tensors of the weight files with those that are packed put together."""
        quantization = self._raw.get("quantization_config")
        if quantization is None:
            return tensors
        if isinstance(quantization, Mapping) and quantization.get("quant_method") == "bitsandbytes":
            bitsandbytes.check_nf4(quantization)
            return bitsandbytes.unpack(tensors)
        return compressed_tensors.unpack(tensors, compressed_tensors.weight_schemes(quantization))

    def files(self) -> list[Path]:
        """Everything that shapes answers: weights, configs, tokenizer, template."""
        found = [*self.folder.glob("*.safetensors"), *self.folder.glob("*.json"), *self.folder.glob("*.jinja")]
        return sorted(file for file in found if file.is_file() and file.name != STEPS_NAME)

    def tokenizer(self, vocab_size: int) -> Tokenizer:
        """The tokenizer of tokenizer.json, with the special ids that the configs name."""
        path = self.folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"'{self.folder}' has no tokenizer.json", hint="export it with transformers")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise MalformedFile(
                f"tokenizer.json may have {MAX_JSON_BYTES} bytes at most, got {path.stat().st_size}",
                hint="fetch it again",
            )
        try:
            inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:
            # The library raises bare exceptions for whatever is wrong with the file.
            raise MalformedFile(f"tokenizer.json cannot be read: {error}", hint="fetch it again") from error
        inner.no_truncation()
        inner.no_padding()
        if (highest := max(inner.get_vocab(with_added_tokens=True).values(), default=-1)) >= vocab_size:
            raise CheckpointError(
                f"tokenizer.json has the id {highest}, the model's vocabulary ends at {vocab_size - 1}",
                hint="tokenizer and weights belong to different models",
            )
        special = self._special_ids(inner, vocab_size)
        self._set_bos(inner, special)
        return Tokenizer(inner, special, _style(inner), vocab_size)

    def template(self) -> ChatTemplate:
        """The chat template, or ChatML where the folder has none."""
        source: Any = template_beside(self.folder)
        if source is None:
            source = self._tokenizer_raw.get("chat_template")
        if source is None:
            source = self._json("chat_template.json").get("chat_template")
        named = {"default": source} if isinstance(source, str) else _named_templates(source)
        return ChatTemplate(named.get("default", CHATML), self._special_texts(), tool_source=named.get("tool_use"))

    def _special_texts(self) -> dict[str, str]:
        """Texts of the special tokens, as templates see them."""
        fallback = self._json("special_tokens_map.json")
        texts: dict[str, str] = {}
        for name in _SPECIAL_NAMES:
            value = self._tokenizer_raw.get(name, fallback.get(name))
            if isinstance(value, Mapping):
                value = value.get("content")
            if isinstance(value, str):
                texts[name] = value
        return texts

    def _special_ids(self, inner: tokenizers.Tokenizer, vocab_size: int) -> SpecialIds:
        """Ids from all places that name some; the generation config counts first."""
        texts = self._special_texts()

        def ids(name: str) -> list[int]:
            found: list[int] = []
            for raw in (self.generation, self._raw):
                value = raw.get(f"{name}_id")
                found += value if isinstance(value, list) else [] if value is None else [value]
            if name in texts and (spelled := inner.token_to_id(texts[name])) is not None:
                found.append(spelled)
            for value in found:
                if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < vocab_size:
                    raise MalformedFile(
                        f"'{name}_id' must be a token id below {vocab_size}, got {str(value)[:40]!r}",
                        hint="config and tokenizer belong to different models",
                    )
            return list(dict.fromkeys(found))

        spelled_bos = inner.token_to_id(texts["bos_token"]) if "bos_token" in texts else None
        bos = [spelled_bos] if spelled_bos is not None else [] if self._tokenizer_raw else ids("bos_token")
        return SpecialIds(
            bos=bos[0] if bos else None,
            eos=tuple(ids("eos_token")),
            pad=next(iter(ids("pad_token")), None),
        )

    def _set_bos(self, inner: tokenizers.Tokenizer, special: SpecialIds) -> None:
        """`add_bos_token` in the tokenizer's config overrules what tokenizer.json does."""
        wanted = self._tokenizer_raw.get("add_bos_token")
        if not isinstance(wanted, bool) or special.bos is None:
            return
        before, after = wrapped = inner.encode("").ids[:1], inner.encode("").ids[1:]
        if (wrapped[0] == [special.bos]) == wanted or after or before not in ([], [special.bos]):
            return
        token = inner.id_to_token(special.bos)
        inner.post_processor = processors.TemplateProcessing(
            single="bos $A" if wanted else "$A",
            pair="$A $B",
            special_tokens=[{"id": "bos", "ids": [special.bos], "tokens": [token]}] if wanted else [],
        )

    def _json(self, name: str) -> dict[str, Any]:
        """A JSON object; empty where the file is not there."""
        path = self.folder / name
        if not path.is_file():
            return {}
        if path.stat().st_size > MAX_JSON_BYTES:
            raise MalformedFile(f"{name} may have {MAX_JSON_BYTES} bytes at most", hint="fetch it again")
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise MalformedFile(f"{name} must be JSON: {str(error)[:100]}", hint="fetch it again") from error
        if not isinstance(found, dict):
            raise MalformedFile(f"{name} must be a JSON object, got {type(found).__name__}", hint="fetch it again")
        return found


def _named_templates(value: Any) -> dict[str, str]:
    """Several templates, each with a name, as some tokenizer configs have them."""
    if not isinstance(value, list):
        return {}
    entries = [entry for entry in value if isinstance(entry, Mapping)]
    return {str(e["name"]): e["template"] for e in entries if "name" in e and isinstance(e.get("template"), str)}


def _style(inner: tokenizers.Tokenizer) -> ByteStyle:
    """How the vocabulary spells bytes, by the decoder that undoes it."""
    shown = repr(inner.decoder)
    if "ByteLevel" in shown:
        return "byte_level"
    if "ByteFallback" in shown or "Metaspace" in shown:
        return "byte_fallback"
    raise CheckpointError(
        f"a tokenizer must decode by ByteLevel, ByteFallback or Metaspace, got {shown[:80]}",
        hint="this kind of tokenizer is not supported yet",
    )
