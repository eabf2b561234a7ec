"""Every setting of one quantization, and which of them go together. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from temper.errors import Invalid
from temper.refine.quantize.grid import BITS, Grid

Method = Literal["rtn", "gptq", "awq", "nf4"]

METHODS: Final = ("rtn", "gptq", "awq", "nf4")
NF4_BLOCKS: Final = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Weights that may share a maximum: those that bitsandbytes knows."""
DEFAULT_GROUP: Final = 32
DEFAULT_BLOCK: Final = 64


@dataclass(frozen=True, slots=True)
class QuantizeRecipe:
    """Every setting of one quantization. What is left at None is filled in by the others.

    Raises:
        Invalid: settings do not go together.
    """

    method: Method = "gptq"
    """`rtn` rounds each weight by itself; `gptq` makes up for what rounding loses; `awq` scales inputs first; `nf4`
    takes sixteen levels that are dense where weights are."""
    bits: int | None = None
    """Of each weight: 4, or 8 where activations have 8."""
    group: int | None = None
    """Inputs that share a scale, 0 for a whole row: 32, or 0 where activations have 8 bits. NF4: weights that share a
    maximum, 64."""
    symmetric: bool = True
    activation_bits: int = 16
    """16 leaves activations alone; 8 lets engines round them to int8 token by token (W8A8, dynamic), under a budget in
    the layers whose weights get 8 bits."""
    act_order: bool = True
    """GPTQ: largest inputs first."""
    damping: float = 0.01
    """GPTQ: share of the mean diagonal added to it."""
    budget_bits: float | None = None
    """Mean bits of a weight, scales among them. Layers then get the bits of `choices` that lose least within it."""
    choices: tuple[int, ...] = field(default=())
    """Bits that a layer may get under a budget: all that there are."""
    sensitivity_tokens: int = 512
    """Calibration tokens over which the loss of each layer is measured, under a budget."""
    calibration_tokens: int = 16384
    window: int = 512
    """Tokens that are read together."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise Invalid(f"a method is {', '.join(METHODS[:-1])} or {METHODS[-1]}, but is '{self.method}'",
                          param="method")  # fmt: skip
        self._check_activations()
        self._check_nf4()
        self._check_budget()
        if not 0 < self.damping <= 1:
            raise Invalid(f"damping lies between 0 and 1, but is {self.damping}", param="damping")
        if self.window < 16 or self.calibration_tokens < self.window:
            raise Invalid(
                f"calibration reads windows of 16 tokens or more and one window at least, but window is {self.window} "
                f"and calibration_tokens is {self.calibration_tokens}",
                param="calibration_tokens",
            )
        if self.method != "nf4":
            for bits in self.choices or (self.bits,):
                self.grid(bits or 0)

    def grid(self, bits: int) -> Grid:
        """What weights of that many bits are rounded to.

        Raises:
            Invalid: there is no such grid, or no file that would hold it.
        """
        if bits == 8 and not self.symmetric and not self.choices:
            raise Invalid("weights of 8 bits have a symmetric grid, but symmetric is false", param="symmetric",
                          hint="256 steps lose nothing by it: leave --asymmetric out")  # fmt: skip
        group = self.group if self.group is not None else DEFAULT_GROUP
        return Grid(bits, 0 if self.rounds_activations(bits) else group, self.symmetric or bits == 8)

    def rounds_activations(self, bits: int) -> bool:
        """Whether engines round what a layer of that many bits reads; its rows have one scale each then."""
        return self.activation_bits == 8 and bits == 8

    @property
    def calibrates(self) -> bool:
        """Whether it reads text at all."""
        return self.method in ("gptq", "awq") or self.budget_bits is not None

    def _fill(self, name: str, value: object) -> None:
        if getattr(self, name) is None or getattr(self, name) == ():
            object.__setattr__(self, name, value)

    def _check_activations(self) -> None:
        if self.activation_bits not in (8, 16):
            raise Invalid(f"activations have 8 or 16 bits, but activation_bits is {self.activation_bits}",
                          param="activation_bits")  # fmt: skip
        if self.activation_bits == 16:
            return
        if self.method == "nf4":
            raise Invalid("activations of 8 bits need weights of 8 bits, but the method is nf4, which has 4",
                          param="activation_bits", hint="take --method rtn or gptq")  # fmt: skip
        if self.budget_bits is not None:
            if 8 not in (self.choices or BITS):
                raise Invalid("activations of 8 bits go with weights of 8 bits, but choices are "
                              f"{', '.join(map(str, self.choices))}", param="choices",
                              hint="add 8 to --choices, or leave --activations out")  # fmt: skip
            return
        self._fill("bits", 8)
        self._fill("group", 0)
        if (self.bits, self.group, self.symmetric) != (8, 0, True):
            raise Invalid(
                "activations of 8 bits go with weights of 8 bits, one scale a row, symmetric, but bits is "
                f"{self.bits}, group is {self.group} and symmetric is {str(self.symmetric).lower()}",
                param="activation_bits",
                hint="leave --bits, --group and --asymmetric out",
            )

    def _check_nf4(self) -> None:
        self._fill("group", DEFAULT_BLOCK if self.method == "nf4" else DEFAULT_GROUP)
        if self.method != "nf4":
            return
        if self.budget_bits is not None:
            raise Invalid("NF4 has 4 bits in every layer, so it takes no budget", param="budget_bits",
                          hint="take --method gptq")  # fmt: skip
        if self.bits not in (None, 4):
            raise Invalid(f"NF4 has 4 bits, but bits is {self.bits}", param="bits", hint="leave --bits out")
        if self.group not in NF4_BLOCKS:
            raise Invalid(f"a block of NF4 has {', '.join(map(str, NF4_BLOCKS))} weights, but group is {self.group}",
                          param="group", hint="64 is what bitsandbytes takes by itself")  # fmt: skip
        if not self.symmetric:
            raise Invalid("NF4 has fixed levels on both sides of zero, so it is neither symmetric nor asymmetric",
                          param="symmetric", hint="leave --asymmetric out")  # fmt: skip
        self._fill("bits", 4)

    def _check_budget(self) -> None:
        if self.budget_bits is None:
            if self.choices:
                raise Invalid("choices are what a budget chooses from, but there is no budget", param="choices",
                              hint="give --budget-bits or --size, or --bits alone")  # fmt: skip
            self._fill("bits", 4)
            return
        if self.bits is not None:
            raise Invalid(f"either every layer has the same bits or a budget shares them out, but bits is {self.bits} "
                          f"and budget_bits is {self.budget_bits}", param="budget_bits",
                          hint="leave --bits out; --choices names what layers may get")  # fmt: skip
        self._fill("choices", BITS)
        if list(self.choices) != sorted(set(self.choices)) or not set(self.choices) <= set(BITS):
            raise Invalid(f"choices are different ones of {', '.join(map(str, BITS))} bits, smallest first, but are "
                          f"{', '.join(map(str, self.choices))}", param="choices")  # fmt: skip
        if not 0 < self.budget_bits <= 32:
            raise Invalid(f"a budget lies between 0 and 32 bits a weight, but is {self.budget_bits}",
                          param="budget_bits")  # fmt: skip
        if not 16 <= self.sensitivity_tokens <= self.calibration_tokens:
            raise Invalid(
                f"sensitivity is measured on 16 tokens or more of the calibration text, but on "
                f"{self.sensitivity_tokens} of {self.calibration_tokens}",
                param="sensitivity_tokens",
            )
