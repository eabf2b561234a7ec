"""How long an engine will take, learned from how long it took.

Each engine is a line for the time to the first token (a fixed part and one per prompt token) and one for the time per
token after it (a fixed part and one per neighbour), fitted by least squares that forget. For reasoning models the
second one decides: output length dominates. It knows numbers only.
"""

from __future__ import annotations

FORGET = 0.98
"""Weight of the past at each new observation: about the last 50 count."""
SMOOTHING = 0.05
"""Weight of a new observation in a running mean."""


class Line:
    """y = a + b x, a and b not negative, by recursive least squares that forget."""

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self.num_seen = 0

    def see(self, x: float, y: float) -> None:
        """Take one observation in."""
        self._n = FORGET * self._n + 1
        self._x = FORGET * self._x + x
        self._y = FORGET * self._y + y
        self._xx = FORGET * self._xx + x * x
        self._xy = FORGET * self._xy + x * y
        self.num_seen += 1

    @property
    def fit(self) -> tuple[float, float]:
        """(a, b); zeros before the first observation."""
        if not self._n:
            return 0.0, 0.0
        mean_x, mean_y = self._x / self._n, self._y / self._n
        spread = self._xx / self._n - mean_x * mean_x
        slope = (self._xy / self._n - mean_x * mean_y) / spread if spread > 1e-9 * (1 + mean_x * mean_x) else 0.0
        slope = max(0.0, slope)
        if slope and mean_y < slope * mean_x:  # the line would start below zero: go through the origin
            return 0.0, self._xy / self._xx
        return mean_y - slope * mean_x, slope

    def at(self, x: float) -> float:
        """The expected y."""
        a, b = self.fit
        return a + b * x


class Mean:
    """A running mean that forgets."""

    def __init__(self, first: float) -> None:
        self.value = first
        self.num_seen = 0

    def see(self, value: float) -> None:
        """Take one observation in; the first ones count more."""
        self.num_seen += 1
        self.value += (value - self.value) * max(SMOOTHING, 1 / self.num_seen)


class CostModel:
    """What one engine takes."""

    def __init__(self) -> None:
        self.first_token = Line()
        """Seconds to the first token, by prompt tokens that no cache held."""
        self.per_token = Line()
        """Seconds per token after it, by requests running beside."""

    def see(self, prompt_tokens: int, first_s: float, output_tokens: int, rest_s: float, beside: int) -> None:
        """Take one finished request in."""
        self.first_token.see(prompt_tokens, first_s)
        if output_tokens > 1:
            self.per_token.see(beside, rest_s / (output_tokens - 1))

    def expect_s(self, prompt_tokens: float, output_tokens: float, beside: int) -> float:
        """Seconds that such a request will take."""
        return self.first_token.at(prompt_tokens) + self.per_token.at(beside) * max(0.0, output_tokens - 1)

    def shown(self) -> dict[str, float | None]:
        """The rates, for people."""
        _, per_prompt = self.first_token.fit
        alone = self.per_token.at(0)
        return {
            "prefill_tokens_per_s": 1 / per_prompt if per_prompt else None,
            "decode_tokens_per_s": 1 / alone if alone else None,
            "observations": self.first_token.num_seen,
        }
