"""How a token is chosen from logits, in plain numpy: the definition of the C++ sampler.

Both give the same tokens from the same logits. Three choices make that possible: the exponential is
written out in single float32 steps, masses are integers (so their sums have no order), and the one
random number per token is a hash of (seed, sample index, position). It knows nothing of programs,
caches or requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from temper.kernels.executor import Float32, Int32, SamplerParams, TokenLogprobs

GREEDY_BELOW: Final = 1e-5
"""Temperatures under this choose the likeliest token."""

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_MASS_ONE: Final = np.float32(2.0**40)
"""Integer mass of the likeliest token."""


@dataclass(slots=True)
class Slot:
    """One sample's sampler state: its parameters and everything in front of its next token."""

    params: SamplerParams
    prompt: list[int]
    output: list[int] = field(default_factory=list)


def check_params(params: SamplerParams, vocab_size: int) -> None:
    """Raise ValueError where a parameter is outside its range or names a token that is not there."""
    checks = (
        (0 <= params.seed <= _MASK, "seed", "between 0 and 2^64 - 1"),
        (0 <= params.sample_index <= _MASK, "sample_index", "between 0 and 2^64 - 1"),
        (0.0 < params.top_p <= 1.0, "top_p", "above 0 and at most 1"),
        (0 <= params.top_k < 1 << 31, "top_k", "0 (off) or a count"),
        (0.0 <= params.min_p <= 1.0, "min_p", "between 0 and 1"),
        (0.0 < params.repetition_penalty <= 100.0, "repetition_penalty", "above 0 and at most 100"),
        (abs(params.presence_penalty) <= 100.0, "presence_penalty", "between -100 and 100"),
        (abs(params.frequency_penalty) <= 100.0, "frequency_penalty", "between -100 and 100"),
        (0 <= params.no_repeat_ngram_size < 1 << 31, "no_repeat_ngram_size", "0 (off) or a count"),
        (0 <= params.min_tokens < 1 << 31, "min_tokens", "a count"),
    )
    for holds, name, rule in checks:
        if not holds:
            raise ValueError(f"{name} must be {rule}; got {getattr(params, name)}")
    for token, bias in params.logit_bias:
        if not 0 <= token < vocab_size:
            raise ValueError(f"logit_bias names token {token}; the vocabulary has {vocab_size}")
        if not np.isfinite(bias):
            raise ValueError(f"logit_bias must be finite; got {bias} for token {token}")
    for token in params.stop_token_ids:
        if not 0 <= token < vocab_size:
            raise ValueError(f"stop_token_ids names token {token}; the vocabulary has {vocab_size}")


def exp32(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """e^x in float32, one rounding per written operation; 0 below -87 and for NaN. x is at most 88."""
    f = np.float32
    usable = x >= f(-87.0)
    x = np.where(usable, x, f(0.0))
    n = (x * f(1.44269504) + f(12582912.0)) - f(12582912.0)
    r = (x - n * f(0.693359375)) - n * f(-2.12194440e-4)
    p = f(1.9875691500e-4) * r + f(1.3981999507e-3)
    p = p * r + f(8.3334519073e-3)
    p = p * r + f(4.1665795894e-2)
    p = p * r + f(1.6666665459e-1)
    p = p * r + f(5.0000001201e-1)
    y = (p * (r * r) + r) + f(1.0)
    power = ((n.astype(np.int32) + 127) << 23).view(np.float32)
    return np.where(usable, y * power, f(0.0)).astype(np.float32)


def keyed_bits(seed: int, sample_index: int, position: int) -> int:
    """64 random bits for the `position`-th generated token of a sample: splitmix64 of the triple."""

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
        return x ^ (x >> 31)

    h = mix((seed + _GOLDEN) & _MASK)
    h = mix(((h ^ sample_index) + _GOLDEN) & _MASK)
    return mix(((h ^ position) + _GOLDEN) & _MASK)


def adjusted(logits: Float32, slot: Slot) -> Float32:
    """Logits [V] after bias, penalties and bans, in that order. Banned tokens are -inf."""
    params = slot.params
    z = np.where(np.isnan(logits), np.float32(-np.inf), logits).astype(np.float32)
    for token, bias in params.logit_bias:
        z[token] += np.float32(bias)
    if params.repetition_penalty != 1.0:
        seen = np.unique(np.array(slot.prompt + slot.output, np.int64))
        penalty = np.float32(params.repetition_penalty)
        z[seen] = np.where(z[seen] > 0, z[seen] / penalty, z[seen] * penalty)
    if params.presence_penalty or params.frequency_penalty:
        tokens, counts = np.unique(np.array(slot.output, np.int64), return_counts=True)
        z[tokens] -= np.float32(params.frequency_penalty) * counts.astype(np.float32)
        z[tokens] -= np.float32(params.presence_penalty)
    for token in ngram_bans(slot.prompt + slot.output, params.no_repeat_ngram_size):
        z[token] = -np.inf
    if len(slot.output) < params.min_tokens:
        z[list(params.stop_token_ids)] = -np.inf
    return z


def ngram_bans(history: list[int], size: int) -> set[int]:
    """Tokens that would complete an n-gram of `size` which already stands in `history`."""
    if size <= 0 or len(history) < size:
        return set()
    tail = history[len(history) - size + 1 :]
    return {history[i + size - 1] for i in range(len(history) - size + 1) if history[i : i + size - 1] == tail}


def choose(logits: Float32, slot: Slot, temperature: float) -> int:
    """The slot's next token from logits [V]. Does not append it to the history."""
    params = slot.params
    z = adjusted(logits, slot)
    best = int(np.argmax(z))
    if z[best] == -np.inf:  # everything is banned: better the likeliest token than none
        return int(np.argmax(np.where(np.isnan(logits), -np.inf, logits)))
    if temperature < GREEDY_BELOW:
        return best
    inverse = np.float32(1.0) / np.float32(temperature)
    with np.errstate(invalid="ignore", over="ignore"):
        weights = exp32((z - z[best]) * inverse)
    mass = (weights * _MASS_ONE).astype(np.int64)
    kept = np.flatnonzero(mass)
    if kept.size == 0:
        return best
    if params.top_k or params.top_p < 1.0 or params.min_p > 0.0:
        kept = kept[np.lexsort((kept, -z[kept]))]  # likeliest first, ties by lower id
        if params.top_k:
            kept = kept[: params.top_k]
        if params.top_p < 1.0:
            before = np.cumsum(mass[kept]) - mass[kept]
            limit = np.float64(params.top_p) * np.float64(mass[kept].sum())
            kept = kept[before.astype(np.float64) < limit]
        kept = kept[weights[kept] >= np.float32(params.min_p)]
        kept = np.sort(kept)
    ends = np.cumsum(mass[kept])
    bits = keyed_bits(params.seed, params.sample_index, len(slot.output))
    target = (bits * int(ends[-1])) >> 64
    return int(kept[np.searchsorted(ends, target, side="right")])


def token_logprobs(logits: Float32, rows: Int32, tokens: Int32, top_k: int) -> TokenLogprobs:
    """Log-probabilities of (row, token) pairs under logits [R, V], and the `top_k` likeliest of each row."""
    size = len(rows)
    chosen = np.empty(size, np.float32)
    top_ids = np.empty((size, top_k), np.int32)
    top = np.empty((size, top_k), np.float32)
    ids = np.arange(logits.shape[1])
    for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        z: NDArray[Any] = logits[row].astype(np.float64)
        log_total = z.max() + np.log(np.exp(z - z.max()).sum())
        chosen[i] = z[token] - log_total
        order = np.lexsort((ids, -z))[:top_k]
        top_ids[i] = order
        top[i] = z[order] - log_total
    return TokenLogprobs(chosen, top_ids, top)
