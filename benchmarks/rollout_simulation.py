"""Many simulated rollouts at once, each looked at after every request.

The rule is that of `fleet.judge` and `fleet.rollouts.decide`, written for arrays of experiments over the same
functions of `measure.stats.sequential`; a test holds that both decide alike, at the same request. The requests are
made up: latencies are log-normal around a load that drifts and is autocorrelated, the same for both arms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from temper.fleet.judge import FEWEST, PLANNED_UNITS
from temper.fleet.plan import Plan
from temper.measure.stats.sequential.bets import Seen, log_wealth, mirrored
from temper.measure.stats.sequential.means import difference_half_width
from temper.measure.stats.sequential.quantiles import BIN_WIDTH
from temper.measure.stats.sequential.rates import scores

LOWEST_BIN, NUM_BINS = 600, 240  # 1.01^600 = 390 ms … 1.01^840 = 4.3 s: below, no 99th percentile is looked for


@dataclass(frozen=True)
class Arm:
    """What one arm does."""

    slower: float = 0.0
    """e2e and first token, B/A − 1."""
    failing: float = 0.0
    wrong: float = 0.0
    e2e_ms: float = 400.0
    spread: float = 0.4
    """Standard deviation of the log of a latency, given the load."""


@dataclass
class Traffic:
    """Requests of `num` experiments, one at a time."""

    num: int
    control: Arm
    candidate: Arm
    seed: int
    load_spread: float = 0.25
    rng: np.random.Generator = field(init=False)
    load: np.ndarray = field(init=False)
    at: int = 0

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.load = self.load_spread * self.rng.standard_normal(self.num)

    def next(self, share: np.ndarray) -> dict[str, np.ndarray]:
        """One request of each experiment, drawn to the candidate with its `share`."""
        rng, num = self.rng, self.num
        self.at += 1
        self.load = 0.995 * self.load + self.load_spread * math.sqrt(1 - 0.995**2) * rng.standard_normal(num)
        trend = 0.3 * math.sin(self.at / 500)  # a day's ups and downs, so that steps meet different loads
        in_b = rng.random(num) < share

        def of(name):
            return np.where(in_b, getattr(self.candidate, name), getattr(self.control, name))

        base = np.log(of("e2e_ms") * (1 + of("slower"))) + self.load + trend
        return {
            "in_b": in_b,
            "failed": rng.random(num) < of("failing"),
            "wrong": rng.random(num) < of("wrong"),
            "e2e": base + of("spread") * rng.standard_normal(num),
            "ttft": base - 2 + of("spread") * rng.standard_normal(num),
            "output": 4 + 0.5 * rng.standard_normal(num),
        }


class Rates:
    def __init__(self, num, shares):
        self.shares = shares
        self.counts = np.zeros((len(shares), num, 4))
        self.index = np.arange(num)

    def observe(self, hit, in_b, step, live):
        self.counts[step[live], self.index[live], (2 * in_b + hit)[live]] += 1

    def seen(self, who):
        used = [at for at in range(len(self.shares)) if self.counts[at].any()]
        return [Seen(scores(self.shares[at], 0.0), self.counts[at][who]) for at in used]

    def above(self, who, needed):
        """Of experiments `who`: harm is shown. Only a hit can show it: whatever else scores 0, and a bet on 0 keeps."""
        found = np.zeros(len(self.index), bool)
        if who.any():
            found[who] = log_wealth(self.seen(who), 0.0) >= needed
        return found

    def below(self, who, value, needed):
        """Of experiments `who`: the difference is shown to be below `value`."""
        found = np.zeros(len(self.index), bool)
        if who.any():
            found[who] = log_wealth(mirrored(self.seen(who)), -value) >= needed
        return found


class Means:
    def __init__(self, num):
        self.count, self.mean, self.squares = (np.zeros((2, num)) for _ in range(3))
        self.index = np.arange(num)

    def restart(self, where):
        for array in (self.count, self.mean, self.squares):
            array[:, where] = 0

    def observe(self, value, in_b, live):
        arm, at = in_b[live].astype(int), self.index[live]
        self.count[arm, at] += 1
        step = value[live] - self.mean[arm, at]
        self.mean[arm, at] += step / self.count[arm, at]
        self.squares[arm, at] += step * (value[live] - self.mean[arm, at])

    def interval(self, alpha):
        enough = self.count.min(0) >= FEWEST
        count = np.maximum(self.count, 2)
        variance = self.squares / (count - 1)
        half = difference_half_width(count[0], variance[0], count[1], variance[1], alpha, planned_units=PLANNED_UNITS)
        half = np.where(enough, half, np.inf)
        difference = self.mean[1] - self.mean[0]
        return difference - half, difference + half


@cache
def bars(alpha: float, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Of n values: up to how many lie below a bound for sure, and from how many on they lie above it."""
    needed = math.log(2 / (alpha / 2))
    n = np.arange(longest + 1)
    few, many = np.full(longest + 1, -1), np.full(longest + 1, longest + 1)
    for k in range(min(longest, 110)):  # k counts the values above: only few of them matter at a 99th percentile
        counts = np.stack([np.full_like(n, k), n - k], axis=-1)
        valid = n >= k
        is_many = valid & (log_wealth([Seen((0.0, 1.0), counts)], np.full(len(n), 0.99)) >= needed)
        is_few = valid & (log_wealth(mirrored([Seen((0.0, 1.0), counts)]), np.full(len(n), -0.99)) >= needed)
        many[is_many] = (n - k)[is_many]
        few[is_few & (few < 0)] = (n - k)[is_few & (few < 0)]
    return few, many


class Tails:
    """The alarm of the 99th percentile: B's lower bound above A's upper one."""

    def __init__(self, num, alpha, longest):
        self.upto = np.zeros((2, num, NUM_BINS), np.int16)
        self.held = np.zeros((2, num, NUM_BINS), bool)
        self.count = np.zeros((2, num), int)
        self.bins = np.arange(NUM_BINS, dtype=np.int16)
        self.index = np.arange(num)
        self.few, self.many = bars(alpha, longest)

    def restart(self, where):
        self.upto[:, where] = 0
        self.held[:, where] = False
        self.count[:, where] = 0

    def observe(self, value, in_b, live):
        bins = np.clip(np.floor(value / BIN_WIDTH) - LOWEST_BIN, 0, NUM_BINS - 1).astype(np.int16)
        at, bins = in_b[live] * len(self.index) + self.index[live], bins[live]
        self.upto.reshape(-1, NUM_BINS)[at] += self.bins >= bins[:, None]
        self.held.reshape(-1, NUM_BINS)[at, bins] = True
        self.count.reshape(-1)[at] += 1

    def worse(self):
        found = np.zeros(self.count.shape[1], bool)
        some = (self.many[self.count[0]] <= self.count[0]) & (self.few[self.count[1]] >= 0)
        if some.any():
            few = (self.upto[1, some] <= self.few[self.count[1, some]][:, None]) & self.held[1, some]
            low_b = np.where(few.any(1), NUM_BINS - np.argmax(few[:, ::-1], axis=1), 0)
            many = self.upto[0, some] >= self.many[self.count[0, some]][:, None]
            high_a = np.where(many.any(1), np.argmax(many, axis=1) + 1, NUM_BINS + 1)
            found[some] = low_b > high_a
        return found


@dataclass
class Ends:
    """How the rollouts ended."""

    state: np.ndarray
    """`promoted`, `rolled_back` or `open`."""
    at: np.ndarray
    """After how many requests."""


def simulate(plan: Plan, traffic: Traffic, longest: int) -> Ends:
    """Run every experiment for at most `longest` requests."""
    num, alphas, watched = traffic.num, plan.alphas, plan.watched
    shares = np.array(plan.steps[:-1])
    step, in_step = np.zeros(num, int), np.zeros(num, int)
    state, at, live = np.full(num, "open", dtype="<U12"), np.full(num, longest), np.ones(num, bool)
    rates = {name: Rates(num, plan.steps[:-1]) for name in ("errors", "wrong") if name in alphas}
    means = {name: Means(num) for name in ("e2e", "ttft", "output") if name in alphas}
    tails = Tails(num, alphas["p99"], longest) if "p99" in alphas else None
    for number in range(1, longest + 1):
        one = traffic.next(shares[step])
        whole = live & ~one["failed"]
        for name, rate in rates.items():
            rate.observe(
                one["failed"] if name == "errors" else one["wrong"],
                one["in_b"],
                step,
                live if name == "errors" else whole,
            )
        for name, mean in means.items():
            mean.observe(one[name], one["in_b"], whole)
        if tails is not None:
            tails.observe(one["e2e"], one["in_b"], whole)
        in_step += 1
        fail, passed = np.zeros(num, bool), (in_step >= plan.min_requests) & (step == len(shares) - 1)
        enough, last = in_step >= plan.min_requests, step == len(shares) - 1
        for name in ("p99", "e2e", "ttft", "output", "errors", "wrong"):  # the dear ones last, for those that are left
            if name not in alphas:
                continue
            if name == "p99":
                fail |= tails.worse()
                continue
            guardrail = watched.get(name)
            tolerance = guardrail.tolerance if guardrail else math.inf
            if name in rates:
                needed = math.log(2 / alphas[name])
                hit = one["failed"] if name == "errors" else one["wrong"] & ~one["failed"]
                worse = rates[name].above(live & hit & one["in_b"], needed)
                within = rates[name].below(live & (passed | worse), tolerance, needed)
                better = np.zeros(num, bool)
            else:
                low, high = means[name].interval(alphas[name])
                limit = math.log1p(tolerance)
                either = guardrail is not None and guardrail.either_way
                within = (high < limit) & ((low > -limit) if either else True)
                worse, better = (low > 0) | ((high < 0) if either else False), high < 0
            if plan.target == name:
                fail |= low > 0
                passed &= better
            if guardrail is not None:
                fail |= worse & ~within
                if guardrail.proven:
                    passed &= within
        ends = live & (fail | passed)
        state[ends], at[ends] = np.where(fail, "rolled_back", "promoted")[ends], number
        live &= ~ends
        moves = live & enough & ~last
        step[moves] += 1
        in_step[moves] = 0
        for judged in (*means.values(), *([tails] if tails else [])):
            judged.restart(moves)
        if not live.any():
            break
    return Ends(state, at)
