"""From a profile's section to an openvino engine that can start. Imports OpenVINO when the engine starts."""

from __future__ import annotations

import time
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, cast

from temper import machine
from temper.engines.native.load import model_name
from temper.engines.native.prompts import Model
from temper.engines.native.scheduler import StepLimits
from temper.errors import CheckpointError, MissingExtra, ProfileError
from temper.kernels.config import ModelConfig
from temper.kernels.executor import Executor
from temper.models.chat_template import ChatTemplate
from temper.models.checkpoint import is_folder, open_checkpoint, recommended_sampling
from temper.models.hf_folder import HfFolder
from temper.models.sources import fetch
from temper.models.tokenizer import StreamDecoder, Tokenizer
from temper.profile.presets import task_preset
from temper.profile.schema import OpenVINOEngine as OpenVINOSection
from temper.profile.schema import SteppedEngine

if TYPE_CHECKING:
    from temper.engines.kinds import Context
    from temper.engines.openvino.engine import OpenVINOEngine

_KV_SHARE: Final = 0.25
"""Of the memory available; GenAI takes its pool at once."""
_KV_MOST_BYTES: Final = 2 << 30
_ITEM_BYTES: Final = {"u8": 1, "f16": 2, "f32": 4}
_U8_SCALE_BYTES: Final = 8
"""Scale and zero point of each head's u8 keys or values of one token."""
_WEIGHTS: Final = "openvino_model.xml"


def load_engine(section: OpenVINOSection, context: Context) -> OpenVINOEngine:
    """The engine of `section`. It loads its model when started.

    Raises:
        MissingExtra: openvino-genai is not installed.
        ProfileError: the section asks for what GenAI cannot promise.
    """
    if find_spec("openvino_genai") is None:
        raise MissingExtra("the engine kind 'openvino' needs openvino-genai", hint="pip install 'temper-llm[openvino]'")
    if (
        section.batching.batch_invariant
        or section.sampling.temperature_schedule
        or section.sampling.no_repeat_ngram_size
    ):
        raise ProfileError(
            "the openvino engine has no batch_invariant, temperature_schedule or no_repeat_ngram_size",
            param="engine",
            hint="leave them out, or use the native engine",
        )
    from temper.engines.openvino.engine import OpenVINOEngine

    return OpenVINOEngine(section, partial(_open, context=context))


def _open(section: SteppedEngine, *, context: Context) -> Model:
    assert isinstance(section, OpenVINOSection), "made by load_engine"
    return open_model(section, context=context)


def open_model(section: OpenVINOSection, *, context: Context) -> Model:
    """Open the checkpoint's small parts here and its weights in GenAI.

    Raises:
        NotFound, FetchFailed, CheckpointError: the source, or what it holds, cannot be used.
        ProfileError: the section asks for what this machine or model has not.
    """
    from temper.engines.openvino.pipeline import BLOCK_TOKENS, GenaiPipeline

    began = time.monotonic()
    fetched = fetch(section.checkpoint, context.cache_dir, endpoint=context.hub_endpoint)
    tokenizer: Tokenizer
    template: ChatTemplate
    if is_folder(fetched):
        if not (fetched.path / _WEIGHTS).is_file():
            raise CheckpointError(
                f"'{section.checkpoint}' has no {_WEIGHTS}", hint="export it to OpenVINO's IR, or give a .gguf file"
            )
        folder, path = HfFolder(fetched.path), fetched.path
        config = folder.config()
        tokenizer, template = folder.tokenizer(config.vocab_size), folder.template()
        generation = recommended_sampling(folder.generation)
    else:
        checkpoint = open_checkpoint(section.checkpoint, context.cache_dir, endpoint=context.hub_endpoint)
        config, path = checkpoint.config, checkpoint.fetched.path
        tokenizer, template, generation = checkpoint.tokenizer, checkpoint.template, checkpoint.generation
        checkpoint.release()
    context_length = _context(section, config)
    block_bytes = _block_bytes(section, config, BLOCK_TOKENS)
    num_blocks = _num_blocks(section, context_length, block_bytes, BLOCK_TOKENS)
    pipeline = _pipeline(section, str(path), num_blocks)
    batching = section.batching
    limits = StepLimits(
        max_sequences=batching.max_sequences, max_step_tokens=batching.max_step_tokens, max_logit_rows=1
    )
    place = GenaiPipeline(pipeline, config.vocab_size, num_blocks, block_bytes, batching.max_sequences)
    return Model(
        name=model_name(section.checkpoint),
        executor=cast(Executor, place),  # of an executor only its sizes are asked for: GenAI is the loop
        tokenizer=tokenizer,
        decoder=partial(StreamDecoder, tokenizer),
        template=template,
        context_length=min(context_length, num_blocks * BLOCK_TOKENS),
        limits=limits,
        generation_defaults=generation,
        presets=task_preset,
        precision="as-stored",
        exactness="unknown",
        details={
            "checkpoint": section.checkpoint,
            "architecture": config.architecture,
            "executor": "openvino",
            "threads": _threads(section),
            "num_blocks": num_blocks,
            "block_tokens": BLOCK_TOKENS,
            "kv_dtype": section.kv.dtype,
            "context_length": context_length,
            "load_s": round(time.monotonic() - began, 3),
        },
    )


def _pipeline(section: OpenVINOSection, path: str, num_blocks: int) -> Any:
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = num_blocks
    scheduler.max_num_seqs = section.batching.max_sequences
    scheduler.max_num_batched_tokens = section.batching.max_step_tokens
    scheduler.enable_prefix_caching = section.kv.prefix_cache
    properties: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": _threads(section),
        "KV_CACHE_PRECISION": section.kv.dtype,
    }
    if section.compute.dtype != "auto":
        properties["INFERENCE_PRECISION_HINT"] = section.compute.dtype
    if section.compute.activation_group != "auto":
        properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = section.compute.activation_group
    try:
        return genai.ContinuousBatchingPipeline(path, scheduler, "CPU", properties)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"OpenVINO cannot load '{section.checkpoint}': {reason}",
                              hint="its formats and architectures are those of GenAI") from error  # fmt: skip


def _threads(section: OpenVINOSection) -> int:
    threads = section.compute.threads
    return max(1, int(machine.usable_cores())) if threads == "auto" else threads


def _context(section: OpenVINOSection, config: ModelConfig) -> int:
    asked = section.batching.context_length
    if asked != "auto" and asked > config.context_length:
        raise ProfileError(
            f"batching.context_length is {asked}, the model was made for {config.context_length}",
            param="batching.context_length",
            hint="lower it",
        )
    return config.context_length if asked == "auto" else asked


def _block_bytes(section: OpenVINOSection, config: ModelConfig, block_tokens: int) -> int:
    """Keys and values of one page in every layer."""
    dtype = section.kv.dtype
    a_head = config.head_dim * _ITEM_BYTES[dtype] + (_U8_SCALE_BYTES if dtype == "u8" else 0)
    return 2 * config.num_layers * config.num_kv_heads * a_head * block_tokens


def _num_blocks(section: OpenVINOSection, context_length: int, block_bytes: int, block_tokens: int) -> int:
    asked = section.kv.budget_bytes
    if asked != "auto":
        budget = asked
    else:
        most = section.batching.max_sequences * -(-context_length // block_tokens)
        budget = min(int(machine.available_memory_bytes() * _KV_SHARE), _KV_MOST_BYTES, most * block_bytes)
    if budget < block_bytes:
        raise ProfileError(
            f"one KV block of {block_tokens} tokens takes {block_bytes} bytes, more than there is for the cache",
            param="kv.budget_bytes",
            hint="raise it, or free memory",
        )
    return budget // block_bytes
