"""The flags of SGLang that decide how it performs, after its `server_args` and the page on server arguments."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from temper.profile.section import Tunable
from temper.profile.servers.flags import Flag, Flags

_SWITCH = (True, False)


class SglangFlags(Flags):
    """SGLang. Every change needs a new process."""

    server: ClassVar[str] = "sglang"
    programs: ClassVar[tuple[tuple[str, ...], ...]] = (("-m", "sglang.launch_server"), ("sglang", "serve"))
    model_names: ClassVar[tuple[str, ...]] = ("--model-path", "--model")
    unsuitable: ClassVar[dict[str, str]] = {
        "--grpc-mode": "it is spoken to in HTTP",
        "--admin-api-key": "a secret must not get into a profile",
    }

    max_running_requests: Annotated[
        int | None, Flag(concept="batching.max_sequences"), Tunable(1, 1024, "log", restart=True)
    ] = Field(None, ge=1)
    """Requests that run at once."""
    max_queued_requests: Annotated[int | None, Flag(concept="admission.max_waiting")] = Field(None, ge=0)
    """Requests that wait; more are refused."""
    chunked_prefill_size: Annotated[
        int | None, Flag(concept="batching.max_step_tokens"), Tunable(256, 32768, "log", restart=True)
    ] = Field(None, ge=-1)
    """Tokens of a prompt computed at a time; -1: all."""
    max_prefill_tokens: Annotated[int | None, Flag(default="16384"), Tunable(1024, 65536, "log", restart=True)] = Field(
        None, ge=1
    )
    """Prompt tokens in one step."""
    context_length: Annotated[int | None, Flag(concept="batching.context_length")] = Field(None, ge=1)
    """Longest prompt + answer."""
    mem_fraction_static: Annotated[float | None, Flag(concept="kv.budget_bytes"), Tunable(0.5, 0.95, restart=True)] = (
        Field(None, gt=0, lt=1)
    )
    """Share of the device's memory for weights and the KV pool."""
    max_total_tokens: Annotated[int | None, Flag(concept="kv.budget_bytes")] = Field(None, ge=1)
    """Tokens in the KV pool, instead of a share of the memory."""
    page_size: Annotated[
        int | None, Flag(concept="kv.block_tokens", default="1"), Tunable(choices=(1, 16, 32, 64), restart=True)
    ] = Field(None, ge=1)
    """Tokens in one page of the KV cache."""
    disable_radix_cache: Annotated[
        bool | None, Flag(concept="kv.prefix_cache", default="off"), Tunable(choices=_SWITCH, restart=True)
    ] = None
    """No reuse of equal beginnings of prompts."""
    kv_cache_dtype: Annotated[
        str | None,
        Flag(concept="kv.dtype", default="auto"),
        Tunable(choices=("auto", "fp8_e5m2", "fp8_e4m3"), restart=True),
    ] = None
    """Number format of keys and values."""
    schedule_policy: Annotated[
        Literal["lpm", "random", "fcfs", "dfs-weight", "lof", "priority", "routing-key"] | None,
        Flag(default="fcfs"),
        Tunable(choices=("lpm", "fcfs", "dfs-weight"), restart=True),
    ] = None
    """Whose turn is next; `lpm`: who shares the longest prefix with what is cached."""
    schedule_conservativeness: Annotated[float | None, Flag(default="1.0"), Tunable(0.1, 2.0, restart=True)] = Field(
        None, gt=0
    )
    """How much room is kept for answers to grow; more means fewer that are thrown back."""
    enable_mixed_chunk: Annotated[bool | None, Flag(default="off"), Tunable(choices=_SWITCH, restart=True)] = None
    """Prefill and decode in the same step."""
    disable_overlap_schedule: Annotated[bool | None, Flag(default="off"), Tunable(choices=_SWITCH, restart=True)] = None
    """Plan a step only when the one before is done."""
    stream_interval: Annotated[int | None, Flag(default="1"), Tunable(1, 16, "log", restart=True)] = Field(None, ge=1)
    """Tokens between two pieces of a stream."""
    dtype: Annotated[
        Literal["auto", "half", "float16", "bfloat16", "float", "float32"] | None,
        Flag(concept="compute.precision", default="auto"),
        Tunable(choices=("auto", "bfloat16", "float16"), restart=True),
    ] = None
    """Number format of weights and activations."""
    quantization: Annotated[str | None, Flag(concept="compute.precision")] = None
    """How weights are quantized, by the checkpoint or at load."""
    attention_backend: str | None = None
    """Which attention kernels."""
    enable_torch_compile: Annotated[bool | None, Flag(default="off"), Tunable(choices=_SWITCH, restart=True)] = None
    """Compile the model's steps."""
    disable_cuda_graph: Annotated[bool | None, Flag(default="off")] = None
    """No CUDA graphs."""
    enable_deterministic_inference: Annotated[bool | None, Flag(concept="batching.batch_invariant", default="off")] = (
        None
    )
    """Nothing depends on who else is in the step."""
    speculative_algorithm: Annotated[str | None, Flag(concept="speculation")] = None
    """How tokens are drafted ahead."""
    speculative_num_steps: Annotated[int | None, Flag(concept="speculation"), Tunable(1, 8, restart=True)] = Field(
        None, ge=1
    )
    """Steps drafted ahead."""
    speculative_eagle_topk: Annotated[int | None, Flag(concept="speculation"), Tunable(1, 8, restart=True)] = Field(
        None, ge=1
    )
    """Branches at each drafted step."""
    speculative_num_draft_tokens: Annotated[
        int | None, Flag(concept="speculation"), Tunable(2, 64, "log", restart=True)
    ] = Field(None, ge=1)
    """Drafted tokens that are checked at once."""
    tp_size: Annotated[int | None, Flag(names=("--tensor-parallel-size", "--tp"), default="1")] = Field(None, ge=1)
    """Devices that share each layer."""
    dp_size: Annotated[int | None, Flag(names=("--data-parallel-size", "--dp"), default="1")] = Field(None, ge=1)
    """Copies of the whole model."""
    random_seed: int | None = None
    """Of sampling, where a request gives none."""
