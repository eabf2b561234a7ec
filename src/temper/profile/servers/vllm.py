"""The flags of vLLM that decide how it performs, after `vllm serve --help=all` of 0.32."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from temper.profile.section import Tunable
from temper.profile.servers.flags import Flag, Flags

_SWITCH = (True, False)


class VllmFlags(Flags):
    """vLLM. Every change needs a new process."""

    server: ClassVar[str] = "vllm"
    programs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("vllm", "serve"),
        ("-m", "vllm.entrypoints.openai.api_server"),
        ("-m", "vllm.entrypoints.cli.main", "serve"),
    )
    positional_model: ClassVar[bool] = True
    underscores: ClassVar[bool] = True
    key_variable: ClassVar[str] = "VLLM_API_KEY"
    unsuitable: ClassVar[dict[str, str]] = {
        "--ssl-keyfile": "on loopback it is spoken to in plain HTTP",
        "--ssl-certfile": "on loopback it is spoken to in plain HTTP",
        "--hf-token": "a secret must not get into a profile; set HF_TOKEN in the environment",
        "--uds": "it is spoken to at a port",
        "--headless": "such a part has no API of its own",
    }

    max_num_seqs: Annotated[
        int | None, Flag(concept="batching.max_sequences"), Tunable(1, 1024, "log", restart=True)
    ] = Field(None, ge=1)
    """Sequences in one step."""
    max_num_batched_tokens: Annotated[
        int | None, Flag(concept="batching.max_step_tokens", scaled=True), Tunable(256, 32768, "log", restart=True)
    ] = Field(None, ge=1)
    """Tokens in one step, prefill and decode together."""
    max_model_len: Annotated[int | None, Flag(concept="batching.context_length", scaled=True)] = Field(None, ge=1)
    """Longest prompt + answer."""
    gpu_memory_utilization: Annotated[
        float | None,
        Flag(names=("--device-memory-utilization",), concept="kv.budget_bytes", default="0.92"),
        Tunable(0.5, 0.98, restart=True),
    ] = Field(None, gt=0, le=1)
    """Share of the device's memory for weights, activations and KV together."""
    kv_cache_memory_bytes: Annotated[int | None, Flag(concept="kv.budget_bytes", scaled=True)] = Field(None, ge=1)
    """Bytes of the KV pool, instead of a share of the memory."""
    block_size: Annotated[
        int | None, Flag(concept="kv.block_tokens"), Tunable(choices=(16, 32, 64, 128), restart=True)
    ] = Field(None, ge=1)
    """Tokens in one page of the KV cache."""
    enable_prefix_caching: Annotated[
        bool | None,
        Flag(off=("--no-enable-prefix-caching",), concept="kv.prefix_cache"),
        Tunable(choices=_SWITCH, restart=True),
    ] = None
    """Keep the pages of finished prompts for equal beginnings."""
    kv_cache_dtype: Annotated[
        str | None, Flag(concept="kv.dtype", default="auto"), Tunable(choices=("auto", "fp8"), restart=True)
    ] = None
    """Number format of keys and values."""
    enable_chunked_prefill: Annotated[
        bool | None, Flag(off=("--no-enable-chunked-prefill",)), Tunable(choices=_SWITCH, restart=True)
    ] = None
    """Compute long prompts in pieces beside the decodes."""
    long_prefill_token_threshold: Annotated[int | None, Flag(default="0"), Tunable(0, 8192, restart=True)] = Field(
        None, ge=0
    )
    """Prompts above it are long and take turns; 0: none is."""
    async_scheduling: Annotated[
        bool | None, Flag(off=("--no-async-scheduling",)), Tunable(choices=_SWITCH, restart=True)
    ] = None
    """Plan the next step while the device computes this one."""
    scheduling_policy: Annotated[Literal["fcfs", "priority"] | None, Flag(default="fcfs")] = None
    """Who waits behind whom."""
    stream_interval: Annotated[int | None, Flag(default="1"), Tunable(1, 16, "log", restart=True)] = Field(None, ge=1)
    """Tokens between two pieces of a stream."""
    dtype: Annotated[
        Literal["auto", "bfloat16", "float", "float16", "float32", "half"] | None,
        Flag(concept="compute.precision", default="auto"),
        Tunable(choices=("auto", "bfloat16", "float16", "float32"), restart=True),
    ] = None
    """Number format of weights and activations."""
    quantization: Annotated[str | None, Flag(names=("-q",), concept="compute.precision")] = None
    """How the checkpoint's weights are quantized."""
    enforce_eager: Annotated[
        bool | None, Flag(off=("--no-enforce-eager",), default="off"), Tunable(choices=_SWITCH, restart=True)
    ] = None
    """No CUDA graphs and no compiler."""
    optimization_level: Annotated[int | None, Flag(default="2"), Tunable(choices=(0, 1, 2, 3), restart=True)] = Field(
        None, ge=0, le=3
    )
    """How much time the start may spend on making steps faster."""
    performance_mode: Annotated[
        Literal["balanced", "interactivity", "throughput"] | None,
        Flag(default="balanced"),
        Tunable(choices=("balanced", "interactivity", "throughput"), restart=True),
    ] = None
    """What kernels and graphs are chosen for."""
    attention_backend: str | None = None
    """Which attention kernels."""
    tensor_parallel_size: Annotated[int | None, Flag(names=("-tp",), default="1")] = Field(None, ge=1)
    """Devices that share each layer."""
    pipeline_parallel_size: Annotated[int | None, Flag(names=("-pp",), default="1")] = Field(None, ge=1)
    """Devices that hold one part of the layers each."""
    data_parallel_size: Annotated[int | None, Flag(names=("-dp",), default="1")] = Field(None, ge=1)
    """Copies of the whole model."""
    cpu_offload_gb: Annotated[float | None, Flag(default="0")] = Field(None, ge=0)
    """GiB of weights kept in the machine's memory."""
    seed: Annotated[int | None, Flag(default="0")] = None
    """Of sampling, where a request gives none."""
