"""How long prompts and answers are: fixed, uniform, normal or log-normal numbers of tokens.

Knows distributions and nothing of what the tokens are. A draw depends on the generator it is given alone.
"""

from __future__ import annotations

from random import Random
from typing import Annotated, Literal

from pydantic import Field, model_validator

from temper.errors import Invalid
from temper.profile.schema import Section

LONGEST = 1 << 20
"""No length is drawn above this, whatever the distribution's tail says."""
REDRAWS = 64


class Fixed(Section):
    """Always the same."""

    kind: Literal["fixed"] = "fixed"
    tokens: int = Field(ge=1, le=LONGEST)


class _Bounded(Section):
    low: int = Field(1, ge=1, le=LONGEST)
    """Shortest; draws below are drawn again."""
    high: int = Field(LONGEST, ge=1, le=LONGEST)
    """Longest; draws above are drawn again."""

    @model_validator(mode="after")
    def _ordered(self) -> _Bounded:
        if self.low > self.high:
            raise ValueError(f"'low' must not exceed 'high', but {self.low} > {self.high}")
        return self


class Uniform(_Bounded):
    """Every whole number from `low` to `high`, equally often."""

    kind: Literal["uniform"] = "uniform"
    low: int = Field(ge=1, le=LONGEST)
    high: int = Field(ge=1, le=LONGEST)


class Normal(_Bounded):
    """Bell-shaped around `mean`, cut to `low` … `high`."""

    kind: Literal["normal"] = "normal"
    mean: float = Field(gt=0)
    sd: float = Field(ge=0)


class LogNormal(_Bounded):
    """Skewed to the right as real prompts are: `median` × e^(`sigma` × standard normal), cut to `low` … `high`."""

    kind: Literal["lognormal"] = "lognormal"
    median: float = Field(gt=0)
    sigma: float = Field(ge=0)


Length = Annotated[Fixed | Uniform | Normal | LogNormal, Field(discriminator="kind")]


def draw(length: Fixed | Uniform | Normal | LogNormal, rng: Random) -> int:
    """One number of tokens."""
    match length:
        case Fixed():
            return length.tokens
        case Uniform():
            return rng.randint(length.low, length.high)
        case _:
            value = 0
            for _ in range(REDRAWS):
                if isinstance(length, Normal):
                    value = round(rng.gauss(length.mean, length.sd))
                else:
                    value = round(length.median * rng.lognormvariate(0.0, length.sigma))
                if length.low <= value <= length.high:
                    return value
            return min(max(value, length.low), length.high)


def parse(text: str) -> Fixed | Uniform | Normal | LogNormal:
    """A length as a command line writes it: `128`, `64-512`, `normal:MEAN,SD`, `lognormal:MEDIAN,SIGMA`.

    Raises:
        Invalid: it is none of these, or breaks their rules.
    """
    kind, colon, rest = text.partition(":")
    try:
        if colon:
            first, second = (float(part) for part in rest.split(","))
            if kind == "normal":
                return Normal(mean=first, sd=second)
            if kind == "lognormal":
                return LogNormal(median=first, sigma=second)
        elif "-" in text:
            low, high = (int(part) for part in text.split("-"))
            return Uniform(low=low, high=high)
        else:
            return Fixed(tokens=int(text))
    except ValueError as error:  # pydantic's ValidationError is one
        reason = str(error).splitlines()[-2 if "\n" in str(error) else 0].strip()
    else:
        reason = f"there is no distribution '{kind}'"
    raise Invalid(
        f"'{text}' is not a length: {reason}", hint="write 128, 64-512, normal:MEAN,SD or lognormal:MEDIAN,SIGMA"
    )
