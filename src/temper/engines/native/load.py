"""From a profile's section to an engine that can start: checkpoint, executor, resources.

The one module here that knows both `models` and `kernels`. What `auto` came to is kept in the
model's details, for run records.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from temper.engines.native.engine import NativeEngine
from temper.engines.native.prompts import Model
from temper.engines.native.resources import Resources, resolve
from temper.engines.native.scheduler import StepLimits
from temper.errors import ProfileError
from temper.kernels.executor import Executor, ExecutorSpec
from temper.models.chat_template import ChatTemplate
from temper.models.checkpoint import Checkpoint, open_checkpoint
from temper.models.tokenizer import StreamDecoder

if TYPE_CHECKING:
    from temper.engines.context import Context
    from temper.kernels.config import ModelConfig
    from temper.models.adapter import Adapter
    from temper.profile.native import NativeEngine as NativeSection
    from temper.profile.presets import TaskPreset


def load_engine(section: NativeSection, context: Context, *, reference: bool = False) -> NativeEngine:
    """The engine of `section` inside this process; it loads its model when started.

    With `reference`, the numpy definition of the ops computes instead of native code: slow, and never
    chosen unless asked for.
    """
    return NativeEngine(section, partial(open_model, context=context, reference=reference))


def open_model(section: NativeSection, *, context: Context, reference: bool = False) -> Model:
    """Open the checkpoint and load it into an executor.

    Raises:
        NotFound, FetchFailed, CheckpointError: see `open_checkpoint`.
        ProfileError: the section asks for what this machine or model has not.
    """
    began = time.monotonic()
    checkpoint = open_checkpoint(section.checkpoint, context.cache_dir, endpoint=context.hub_endpoint)
    config, batching = checkpoint.config, section.batching
    spec = ExecutorSpec(
        num_layers=config.num_layers,
        kv_width=config.kv_width,
        num_blocks=1,
        block_tokens=section.kv.block_tokens,
        kv_dtype=section.kv.dtype,
        max_step_tokens=batching.max_step_tokens,
    )
    weight_bytes = sum(tensor.num_bytes for tensor in checkpoint.tensors.values())
    found = resolve(
        section,
        model_context=config.context_length,
        kv_block_bytes=spec.kv_block_bytes,
        weight_bytes=weight_bytes,
    )
    executor = _executor(section, checkpoint, spec, found, context.cache_dir, reference)
    checkpoint.release()
    return Model(
        name=model_name(section.checkpoint),
        executor=executor,
        tokenizer=checkpoint.tokenizer,
        decoder=partial(StreamDecoder, checkpoint.tokenizer),
        template=checkpoint.template,
        context_length=found.context_length,
        limits=StepLimits(
            max_sequences=batching.max_sequences,
            max_step_tokens=batching.max_step_tokens,
            max_logit_rows=found.max_logit_rows,
        ),
        generation_defaults=checkpoint.generation,
        presets=_task_preset,
        read_adapter=partial(read_for, checkpoint.config, checkpoint.template),
        precision=section.compute.precision,
        exactness="batch-invariant" if batching.batch_invariant else "reproducible",
        details={
            "checkpoint": section.checkpoint,
            "architecture": config.architecture,
            "executor": "reference" if reference else "native",
            "isa": getattr(executor, "isa", "numpy"),
            "arithmetic": getattr(executor, "arithmetic", "f32"),
            "sweeps": getattr(executor, "sweeps", {}),
            "threads": 1 if reference else found.threads,
            "cpus": found.cpus,
            "num_blocks": found.num_blocks,
            "block_tokens": spec.block_tokens,
            "kv_dtype": spec.kv_dtype,
            "context_length": found.context_length,
            "weight_bytes": getattr(executor, "weight_bytes", weight_bytes),
            "load_s": round(time.monotonic() - began, 3),
        },
    )


def model_name(source: str) -> str:
    """What a checkpoint is called when nobody names it: the last part of its source."""
    name = source.rstrip("/").split("@")[0].rsplit(":", 1)[-1]
    return Path(name).name.removesuffix(".gguf") or source


def _task_preset(name: str) -> TaskPreset:
    """Imported when a request names one: a worker starts without the schema."""
    from temper.profile.presets import task_preset

    return task_preset(name)


def read_for(config: ModelConfig, template: ChatTemplate, source: str, max_rank: int, max_bytes: int) -> Adapter:
    """The adapter in the folder `source`, for a model of this `config` and `template`; see
    `models.adapter.read_adapter`.

    That is imported when an adapter is asked for: most engines never have one.
    """
    from temper.models.adapter import read_adapter

    return read_adapter(Path(source).expanduser(), config, template, max_rank=max_rank, max_bytes=max_bytes)


def _executor(
    section: NativeSection,
    checkpoint: Checkpoint,
    plan: ExecutorSpec,
    found: Resources,
    cache_dir: Path,
    reference: bool,
) -> Executor:
    spec = ExecutorSpec(
        num_layers=plan.num_layers,
        kv_width=plan.kv_width,
        num_blocks=found.num_blocks,
        block_tokens=plan.block_tokens,
        kv_dtype=plan.kv_dtype,
        max_step_tokens=plan.max_step_tokens,
        max_logit_rows=found.max_logit_rows,
    )
    if reference:
        from temper.kernels.reference import ReferenceExecutor

        return ReferenceExecutor(checkpoint.program(), checkpoint.tensors, spec)
    from temper.kernels.native import load_executor

    try:
        return load_executor(
            checkpoint.program(),
            checkpoint.tensors,
            spec,
            isa=section.compute.isa,
            threads=found.threads,
            cpus=found.cpus,
            precision=section.compute.precision,
            arithmetic=section.compute.arithmetic,
            batch_invariant=section.batching.batch_invariant,
            two_digits=section.compute.two_digits,
            sweeps_folder=cache_dir / "sweeps",
        )
    except ValueError as error:
        raise ProfileError(f"the model cannot be loaded as the profile asks: {error}", hint="see compute") from error
