"""What this machine can do at most: bytes read and operations done in a second, measured now."""

from __future__ import annotations

from dataclasses import dataclass

from temper.kernels import _native

LEAST_BYTES = 1 << 20
ROUNDS = 9


@dataclass(frozen=True, slots=True)
class Limits:
    """The machine's limits for one engine: its threads, its kernels, what a step reads."""

    read_bytes_per_s: float
    """Read from a buffer as large as what a step reads, so that what a cache holds of it counts as fast."""
    int8_operations_per_s: float
    """Multiply-adds of int8 in registers with the fastest instructions of the ISA, two operations each."""
    bf16_operations_per_s: float
    """Of bf16 summed in float32; as fast as float32 where the ISA has no such instruction."""
    f32_operations_per_s: float
    isa: str
    threads: int
    working_set_bytes: int

    def least_s(
        self, num_bytes: int, int8_operations: int, bf16_operations: int, f32_operations: int
    ) -> tuple[float, float]:
        """Seconds that moving, and that computing so much take at least."""
        compute = (
            int8_operations / self.int8_operations_per_s
            + bf16_operations / self.bf16_operations_per_s
            + f32_operations / self.f32_operations_per_s
        )
        return num_bytes / self.read_bytes_per_s, compute


def measure(isa: str, threads: int, working_set_bytes: int) -> Limits:
    """Measure the limits; takes about a second, and wants the machine for itself.

    Raises:
        ValueError: this machine has no kernels of that ISA.
    """
    size = max(LEAST_BYTES, working_set_bytes)
    return Limits(
        read_bytes_per_s=_native.read_bandwidth(size, threads, ROUNDS),
        int8_operations_per_s=_native.peak_operations("int8", isa, threads, ROUNDS),
        bf16_operations_per_s=_native.peak_operations("bf16", isa, threads, ROUNDS),
        f32_operations_per_s=_native.peak_operations("f32", isa, threads, ROUNDS),
        isa=isa,
        threads=threads,
        working_set_bytes=size,
    )
