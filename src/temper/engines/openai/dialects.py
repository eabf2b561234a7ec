"""What the servers of the field understand beyond OpenAI's own fields, and how they are told apart.

A field that a server does not know is refused here by name: some servers would ignore it in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SAME = ("top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos", "min_tokens")


@dataclass(frozen=True, slots=True)
class Dialect:
    """One kind of server."""

    name: str
    owners: tuple[str, ...] = ()
    """`owned_by` in its list of models."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Our name of a field beyond OpenAI's to theirs."""
    health: str = "/models"
    """Path that answers 200 when it can serve; those with a slash of their own root begin with `//`."""
    tokenizer: Literal["vllm", "llama"] | None = None
    """Whose shape `/tokenize` and `/detokenize` have."""
    token_prompts: bool = False
    """Completions take token ids."""
    echo: bool = False
    max_logprobs: int = 0
    max_n: int = 1
    tools: bool = True
    grammar: bool = True
    seed: bool = True
    chat_only: bool = False
    tells_start: bool = False
    """Streams can begin with the size of the prompt (`stream_options.include_start`)."""
    tells_token_ids: bool = False
    """Streams can carry token ids (`return_token_ids`)."""


def _named(*names: str, **renamed: str) -> dict[str, str]:
    return {name: name for name in names} | renamed


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            "temper",
            ("temper",),
            _named(*SAME, "no_repeat_ngram_size", "temperature_schedule", "num_beams", "preset", "graceful_end",
                   "priority", "thinking", "reasoning_effort", "extensions"),
            "//ready", "vllm", token_prompts=True, echo=True, max_logprobs=20, max_n=16,
            tells_start=True, tells_token_ids=True,
        ),
        Dialect(
            "vllm", ("vllm",), _named(*SAME, "priority", "reasoning_effort"), "//health", "vllm",
            token_prompts=True, echo=True, max_logprobs=20, max_n=128, tells_token_ids=True,
        ),
        Dialect(
            "sglang", ("sglang",), _named(*SAME, "reasoning_effort"), "//health", None,
            token_prompts=True, echo=True, max_logprobs=20, max_n=128,
        ),
        Dialect(
            "llama-server", ("llamacpp",), _named("top_k", "min_p", "ignore_eos", repetition_penalty="repeat_penalty"),
            "//health", "llama", token_prompts=True, max_logprobs=20,
        ),
        Dialect("ollama", ("library", "ollama")),
        Dialect("deepseek", ("deepseek",), _named("reasoning_effort", "thinking"), max_logprobs=20),
        Dialect("openai", ("openai", "system"), _named("reasoning_effort"), max_logprobs=20, max_n=128),
    )
}  # fmt: skip


def recognise(owned_by: str | None) -> Dialect:
    """The dialect of a server whose models are `owned_by` somebody; plain OpenAI where nobody is known."""
    for dialect in DIALECTS.values():
        if owned_by in dialect.owners:
            return dialect
    return DIALECTS["openai"]
