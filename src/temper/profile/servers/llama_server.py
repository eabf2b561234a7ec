"""The flags of llama.cpp's `llama-server` that decide how it performs, after its `--help`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from temper.profile.section import Tunable
from temper.profile.servers.flags import Flag, Flags

_SWITCH = (True, False)
_KV = ("f16", "bf16", "q8_0", "q4_0")
_KvType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]


class LlamaServerFlags(Flags):
    """llama.cpp's server. Every change needs a new process."""

    server: ClassVar[str] = "llama-server"
    programs: ClassVar[tuple[tuple[str, ...], ...]] = (("llama-server",),)
    model_names: ClassVar[tuple[str, ...]] = ("-m", "--model")
    key_variable: ClassVar[str] = "LLAMA_API_KEY"
    unsuitable: ClassVar[dict[str, str]] = {
        "--ssl-key-file": "on loopback it is spoken to in plain HTTP",
        "--ssl-cert-file": "on loopback it is spoken to in plain HTTP",
        "--api-key-file": "Temper would not know the key",
        "--hf-token": "a secret must not get into a profile; set HF_TOKEN in the environment",
        "-hft": "a secret must not get into a profile; set HF_TOKEN in the environment",
        "--api-prefix": "its API must be found at /v1",
    }

    parallel: Annotated[
        int | None, Flag(names=("-np",), concept="batching.max_sequences"), Tunable(1, 256, "log", restart=True)
    ] = Field(None, ge=-1)
    """Slots: sequences in one step. They share `ctx_size`."""
    ctx_size: Annotated[int | None, Flag(names=("-c",), concept="batching.context_length")] = Field(None, ge=0)
    """Tokens of all slots together; 0: as the model says."""
    batch_size: Annotated[int | None, Flag(names=("-b",), default="2048"), Tunable(64, 8192, "log", restart=True)] = (
        Field(None, ge=1)
    )
    """Tokens taken up at a time."""
    ubatch_size: Annotated[
        int | None,
        Flag(names=("-ub",), concept="batching.max_step_tokens", default="512"),
        Tunable(32, 2048, "log", restart=True),
    ] = Field(None, ge=1)
    """Tokens computed in one step."""
    cont_batching: Annotated[bool | None, Flag(names=("-cb",), off=("--no-cont-batching", "-nocb"), default="on")] = (
        None
    )
    """Requests join and leave between steps."""
    threads: Annotated[int | None, Flag(names=("-t",), concept="compute.threads"), Tunable(1, 64, restart=True)] = None
    """Threads while generating."""
    threads_batch: Annotated[int | None, Flag(names=("-tb",), default="as threads"), Tunable(1, 64, restart=True)] = (
        None
    )
    """Threads while reading prompts."""
    threads_http: int | None = None
    """Threads that speak HTTP."""
    poll: Annotated[int | None, Flag(default="50"), Tunable(choices=(0, 50, 100), restart=True)] = Field(
        None, ge=0, le=100
    )
    """How eagerly idle threads look for work, in percent."""
    flash_attn: Annotated[
        Literal["on", "off", "auto"] | None,
        Flag(names=("-fa",), default="auto"),
        Tunable(choices=("on", "off"), restart=True),
    ] = None
    """Attention in one pass over the cache."""
    cache_type_k: Annotated[
        _KvType | None,
        Flag(names=("-ctk",), concept="kv.dtype", default="f16"),
        Tunable(choices=_KV, restart=True),
    ] = None
    """Number format of keys."""
    cache_type_v: Annotated[
        _KvType | None,
        Flag(names=("-ctv",), concept="kv.dtype", default="f16"),
        Tunable(choices=_KV, restart=True),
    ] = None
    """Number format of values."""
    cache_prompt: Annotated[
        bool | None,
        Flag(off=("--no-cache-prompt",), concept="kv.prefix_cache", default="on"),
        Tunable(choices=_SWITCH, restart=True),
    ] = None
    """Keep a slot's prompt for the next one with the same beginning."""
    cache_reuse: Annotated[int | None, Flag(default="0"), Tunable(choices=(0, 64, 256), restart=True)] = Field(
        None, ge=0
    )
    """Shortest equal piece that is reused at another place; 0: none."""
    cache_ram: Annotated[int | None, Flag(names=("-cram",), default="8192")] = Field(None, ge=-1)
    """MiB for prompts that no slot holds; -1: no limit."""
    kv_unified: Annotated[
        bool | None, Flag(names=("-kvu",), off=("--no-kv-unified", "-no-kvu")), Tunable(choices=_SWITCH, restart=True)
    ] = None
    """One pool for all slots instead of equal shares."""
    repack: Annotated[
        bool | None, Flag(off=("--no-repack", "-nr"), default="on"), Tunable(choices=_SWITCH, restart=True)
    ] = None
    """Put weights into the order that the kernels like, at load."""
    n_gpu_layers: Annotated[int | Literal["auto", "all"] | None, Flag(names=("-ngl", "--gpu-layers"))] = None
    """Layers on the GPU."""
    spec_type: Annotated[str | None, Flag(concept="speculation", default="none")] = None
    """How tokens are drafted ahead."""
    spec_draft_n_max: Annotated[
        int | None, Flag(concept="speculation", default="3"), Tunable(1, 32, "log", restart=True)
    ] = Field(None, ge=0)
    """Most tokens drafted at a time."""
    reasoning_budget: Annotated[int | None, Flag(concept="reasoning.budget_tokens", default="-1")] = Field(None, ge=-1)
    """Thinking tokens; -1: no bound."""
    seed: Annotated[int | None, Flag(names=("-s",), default="-1")] = None
    """Of sampling, where a request gives none; -1: a new one each time."""
