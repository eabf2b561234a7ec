"""From a profile's section to a torch engine that can start. Imports torch when the engine starts, not before."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from temper.engines.native.engine import NativeEngine
from temper.engines.native.load import model_name, read_for
from temper.engines.native.prompts import Model
from temper.engines.native.resources import resolve
from temper.engines.native.scheduler import StepLimits
from temper.errors import MissingExtra, ProfileError
from temper.kernels.executor import ExecutorSpec
from temper.models.architectures import ARCHITECTURES
from temper.models.chat_template import ChatTemplate
from temper.models.checkpoint import is_folder, open_checkpoint, recommended_sampling
from temper.models.hf_folder import HfFolder
from temper.models.sources import fetch
from temper.models.tokenizer import StreamDecoder, Tokenizer
from temper.profile.presets import task_preset
from temper.profile.schema import SteppedEngine
from temper.profile.schema import TorchEngine as TorchSection

if TYPE_CHECKING:
    from temper.engines.kinds import Context


def load_engine(section: TorchSection, context: Context) -> NativeEngine:
    """The engine of `section`: the loop of the native engine over a transformers model. Loads when started.

    Raises:
        MissingExtra: torch or transformers is not installed.
        ProfileError: the section asks for what torch cannot promise.
    """
    missing = [name for name in ("torch", "transformers", "accelerate") if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"the engine kind 'torch' needs {' and '.join(missing)}", hint="pip install 'temper-llm[torch]'"
        )
    if section.batching.batch_invariant:
        raise ProfileError(
            "the torch engine cannot promise batch_invariant: its libraries choose kernels by the number of rows",
            param="engine.batching.batch_invariant",
            hint="leave it off, or use the native engine",
        )
    return NativeEngine(section, partial(_open, context=context))


def _open(section: SteppedEngine, *, context: Context) -> Model:
    assert isinstance(section, TorchSection), "made by load_engine"
    return open_model(section, context=context)


def open_model(section: TorchSection, *, context: Context) -> Model:
    """Open the checkpoint, put it into a transformers model, and measure what its cache takes.

    Raises:
        NotFound, FetchFailed, CheckpointError: the source, or what it holds, cannot be used.
        ProfileError: the section asks for what this machine or model has not.
        MissingExtra: bitsandbytes is asked for and not installed.
    """
    import torch

    from temper.engines.torch.executor import TorchExecutor, measure_block_bytes
    from temper.engines.torch.weights import DTYPES, model_from_checkpoint, model_from_folder, quantize_linears

    began = time.monotonic()
    compute, batching = section.compute, section.batching
    device = _device(compute.device, torch.cuda.is_available())
    fetched = fetch(section.checkpoint, context.cache_dir, endpoint=context.hub_endpoint)
    network: Any
    tokenizer: Tokenizer
    template: ChatTemplate
    # Packed weights are read by our own reader: transformers needs a package for each kind of them.
    if is_folder(fetched) and not HfFolder(fetched.path).quantized:
        network = model_from_folder(fetched.path, DTYPES[compute.dtype])
        config = network.config.get_text_config()
        vocab_size, context_length = int(config.vocab_size), int(config.max_position_embeddings)
        folder = HfFolder(fetched.path)
        tokenizer, template = folder.tokenizer(vocab_size), folder.template()
        generation, architecture = recommended_sampling(folder.generation), str(network.config.model_type)
        numbers = folder.config() if architecture in ARCHITECTURES else None
    else:
        checkpoint = open_checkpoint(section.checkpoint, context.cache_dir, endpoint=context.hub_endpoint)
        network = model_from_checkpoint(checkpoint, DTYPES[compute.dtype])
        vocab_size, context_length = checkpoint.config.vocab_size, checkpoint.config.context_length
        tokenizer, template = checkpoint.tokenizer, checkpoint.template
        generation, architecture = checkpoint.generation, checkpoint.config.architecture
        numbers = replace(checkpoint.config, rope_interleaved=False)  # transformers has its own order of rows
        checkpoint.release()
    quantize_linears(network, compute.quantize)
    network.to(device)
    weight_bytes = sum(parameter.nbytes for parameter in network.parameters())
    kv_block_bytes = measure_block_bytes(network, section.kv.block_tokens, section.kv.dtype)
    # The weights are in memory already, so what is available no longer counts them.
    found = resolve(section, model_context=context_length, kv_block_bytes=kv_block_bytes, weight_bytes=0)
    torch.set_num_threads(found.threads)
    if compute.compile:
        network.forward = torch.compile(network.forward, dynamic=True)
    spec = ExecutorSpec(
        num_layers=0,
        kv_width=0,
        num_blocks=found.num_blocks,
        block_tokens=section.kv.block_tokens,
        kv_dtype=section.kv.dtype,
        max_step_tokens=batching.max_step_tokens,
        max_logit_rows=found.max_logit_rows,
    )
    precision = compute.dtype if compute.quantize == "none" else f"{compute.quantize}, {compute.dtype}"
    return Model(
        name=model_name(section.checkpoint),
        executor=TorchExecutor(network, vocab_size, spec, kv_block_bytes),
        tokenizer=tokenizer,
        decoder=partial(StreamDecoder, tokenizer),
        template=template,
        context_length=found.context_length,
        limits=StepLimits(
            max_sequences=batching.max_sequences,
            max_step_tokens=batching.max_step_tokens,
            max_logit_rows=found.max_logit_rows,
        ),
        generation_defaults=generation,
        presets=task_preset,
        # A compiled forward does not see what is put beside its layers later.
        read_adapter=partial(read_for, numbers, template) if numbers is not None and not compute.compile else None,
        precision=precision,
        exactness="reproducible",
        details={
            "checkpoint": section.checkpoint,
            "architecture": architecture,
            "executor": "torch",
            "device": device,
            "threads": found.threads,
            "num_blocks": found.num_blocks,
            "block_tokens": section.kv.block_tokens,
            "kv_dtype": section.kv.dtype,
            "context_length": found.context_length,
            "weight_bytes": weight_bytes,
            "load_s": round(time.monotonic() - began, 3),
        },
    )


def _device(asked: str, has_cuda: bool) -> str:
    if asked == "cuda" and not has_cuda:
        raise ProfileError("compute.device is 'cuda', and torch finds no such device here",
                           param="engine.compute.device", hint="use 'auto' or 'cpu'")  # fmt: skip
    return ("cuda" if has_cuda else "cpu") if asked == "auto" else asked
