"""Types of the C++ module; see csrc/bindings.cpp, csrc/bind_weights.cpp and csrc/machine_limits.cpp."""

import numpy as np
from numpy.typing import NDArray

from temper.kernels.executor import Phase

_Place = tuple[int, int, int]

class PackedWeight:
    def __init__(self, format: str, data: NDArray[np.uint8], n: int, k: int, in_tiles: bool = False) -> None: ...
    @property
    def n(self) -> int: ...
    @property
    def k(self) -> int: ...
    @property
    def num_bytes(self) -> int: ...
    @property
    def format(self) -> str: ...
    @property
    def quantized(self) -> bool: ...
    @property
    def in_tiles(self) -> bool: ...
    def lookup(self, ids: NDArray[np.int32]) -> NDArray[np.float32]: ...

def convert_weights(format: str, data: NDArray[np.uint8], n: int, k: int, to: str) -> NDArray[np.uint8]: ...
def kernel_sets() -> list[str]: ...
def linear(
    weight: PackedWeight,
    x: NDArray[np.float32],
    isa: str,
    threads: int = 1,
    arithmetic: str = "int8",
    sweep: str = "auto",
) -> NDArray[np.float32]: ...

NEVER: int

def sweep_rows(isa: str) -> tuple[int, int]: ...
def quantize_activations(
    x: NDArray[np.float32], isa: str
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]: ...
def time_linear(
    weights: list[PackedWeight],
    rows: int,
    isa: str,
    threads: int,
    repeats: int,
    arithmetic: str = "int8",
    sweep: str = "auto",
    most_bytes: int = ...,
) -> list[float]: ...
def read_bandwidth(bytes: int, threads: int, rounds: int = 5) -> float: ...
def peak_operations(kind: str, isa: str, threads: int, rounds: int = 5) -> float: ...
def keyed_bits(seed: int, sample_index: int, position: int) -> int: ...

class AdapterPart:
    def __init__(
        self,
        *,
        op: int,
        shrink: PackedWeight,
        scales: NDArray[np.float32],
        expands: list[tuple[int, PackedWeight, int]],
    ) -> None: ...

class OpSpec:
    def __init__(
        self,
        *,
        kind: str,
        label: str,
        out: _Place,
        args: list[_Place],
        matrices: list[PackedWeight],
        vector: NDArray[np.float32],
        bias: NDArray[np.float32],
        prologue: str,
        add_residual: bool,
        digits: int,
        bf16_rows: int,
        eps: float,
        scale: float,
        layer: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        window: int,
        interleaved: bool,
    ) -> None: ...

class Executor:
    def __init__(
        self,
        *,
        num_layers: int,
        kv_width: int,
        num_blocks: int,
        block_tokens: int,
        half: bool,
        max_step_tokens: int,
        max_logit_rows: int,
        buffer_widths: list[int],
        ops: list[OpSpec],
        isa: str,
        threads: int,
        cpus: list[int],
        weights: object,
    ) -> None: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def kv_block_bytes(self) -> int: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    def forward(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        q_starts: NDArray[np.int32],
        context_lens: NDArray[np.int32],
        block_tables: NDArray[np.int32],
        logit_rows: NDArray[np.int32],
        adapters: NDArray[np.int32] | None,
    ) -> None: ...
    def attach_adapter(self, parts: list[AdapterPart], weights: object) -> int: ...
    def detach_adapter(self, slot: int) -> None: ...
    def set_sweeps(self, like: PackedWeight, panel_from: int, pair_from: int) -> None: ...
    def logits(self) -> NDArray[np.float32]: ...
    def open_slot(
        self,
        prompt: NDArray[np.int32],
        *,
        seed: int,
        sample_index: int,
        top_p: float,
        top_k: int,
        min_p: float,
        repetition_penalty: float,
        presence_penalty: float,
        frequency_penalty: float,
        no_repeat_ngram_size: int,
        min_tokens: int,
        logit_bias: list[tuple[int, float]],
        stop_token_ids: list[int],
    ) -> int: ...
    def close_slot(self, slot: int) -> None: ...
    def sample(
        self,
        rows: NDArray[np.int32],
        slots: NDArray[np.int32],
        temperatures: NDArray[np.float32],
        forced: NDArray[np.int32],
    ) -> NDArray[np.int32]: ...
    def logprobs(
        self, rows: NDArray[np.int32], tokens: NDArray[np.int32], top_k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]: ...
    def set_timing(self, on: bool) -> None: ...
    def reset_op_times(self) -> None: ...
    def op_times(self) -> list[tuple[str, Phase, int, int, int, int, int]]: ...
