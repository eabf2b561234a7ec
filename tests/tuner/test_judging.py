from __future__ import annotations

import random

import pytest

from temper.tuner import judging
from temper.tuner.objective import Limit, Objective

RATE = Objective("output_tokens_per_s", "higher")
LATENCY = Objective("e2e_ms.p99", "lower", -0.2)


def test_superiority_says_effect_and_interval_in_the_metric_s_own_direction():
    better = judging.superiority(LATENCY, [0.20, 0.24, 0.22, 0.23], proven=True, alpha=0.05)
    assert better.verdict == "pass"
    assert better.effect < 0
    assert better.interval[0] < better.effect < better.interval[1] < 0
    worse = judging.superiority(RATE, [-0.20, -0.24, -0.22, -0.23], proven=False, alpha=0.05)
    assert worse.verdict == "fail"
    assert judging.superiority(RATE, [0.1, -0.1, 0.05], proven=False, alpha=0.05).verdict == "inconclusive"
    assert judging.p_value([0.1]) == 1.0


def test_answers_that_got_shorter_fail_and_few_starts_do_not_pass():
    assert judging.same_length([0.0, 0.01, -0.01, 0.005], 0.1, 0.05).verdict == "pass"
    assert judging.same_length([-0.5, -0.6, -0.55, -0.5], 0.1, 0.05).verdict == "fail"
    assert judging.same_length([0.05, -0.2, 0.1], 0.1, 0.05).verdict == "inconclusive"


def test_failures_beyond_the_margin_fail():
    assert judging.failures((0, 400), (0, 400), 0.01, 0.95).verdict == "pass"
    assert judging.failures((40, 400), (0, 400), 0.01, 0.95).verdict == "fail"
    assert judging.failures((8, 400), (0, 400), 0.01, 0.95).verdict == "inconclusive"


@pytest.mark.parametrize(("hits", "total", "verdict"), [(0, 44, "pass"), (0, 43, "inconclusive"), (30, 100, "fail")])
def test_a_percentile_is_proved_by_the_binomial_bound(hits, total, verdict):
    found = judging.within(Limit("ttft_ms.p90", "<=", 300.0), hits, total, [250.0], 0.05)
    assert found.verdict == verdict


def test_a_mean_limit_needs_an_interval():
    limit = Limit("rss_bytes", "<=", 2e9)
    assert judging.within(limit, 0, 0, [1.5e9, 1.6e9, 1.5e9], 0.05).verdict == "pass"
    assert judging.within(limit, 0, 0, [2.5e9, 2.6e9, 2.5e9], 0.05).verdict == "fail"
    assert judging.within(limit, 0, 0, [1.5e9], 0.05).verdict == "inconclusive"


def test_under_no_effect_the_test_errs_as_often_as_it_says():
    draw = random.Random(1)
    wrong = sum(judging.p_value([draw.gauss(0, 0.05) for _ in range(6)]) <= 0.05 for _ in range(500))
    assert wrong <= 37  # 5 % of 500 with its 99 % bound
