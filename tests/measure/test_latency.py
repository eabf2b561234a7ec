from __future__ import annotations

import pytest

from temper.measure.latency import DEFINITIONS, distribution, figures, is_good, spread, tpot_s
from temper.measure.loadgen import Outcome
from temper.measure.workload.schema import Targets


def outcome(due=0.0, first=0.1, gap=0.01, tokens=11, **changed):
    arrivals = [due + first + gap * i for i in range(tokens)]
    end = arrivals[-1] if arrivals else due + first
    return Outcome("r", due, due, end, arrivals, arrivals[0] if arrivals else None, 20, 0, tokens, **changed)


def test_percentiles_are_null_with_a_reason_until_the_sample_carries_them():
    found = spread([0.001 * value for value in range(1, 29)])
    assert found["p50"] == 14
    assert found["p90"] is None
    assert found["p99"] is None
    assert found["reason"] == "p90 needs 29 values, p99 needs 299 values, but there are 28"
    whole = spread([0.001 * value for value in range(1, 300)])
    assert (whole["p50"], whole["p90"], whole["p99"]) == (150, 270, 297)
    assert "reason" not in whole
    nothing = spread([])
    assert (nothing["count"], nothing["p50"], nothing["mean"], nothing["max"]) == (0, None, None, None)
    assert nothing["reason"].endswith("p99 needs 299 values, but there are 0")


def test_each_definition_by_hand():
    found = figures([outcome(due=float(i)) for i in range(10)], Targets())
    assert found["duration_s"] == pytest.approx(9.2)
    assert found["output_tokens_per_s"] == pytest.approx(110 / 9.2, abs=1e-3)
    assert found["total_tokens_per_s"] == pytest.approx(310 / 9.2, abs=1e-3)
    assert found["prefill_tokens_per_s"] == pytest.approx(200 / 1.0)
    assert found["ttft_ms"]["p50"] == pytest.approx(100)
    assert found["itl_ms"]["count"] == 100
    assert found["tpot_ms"]["p50"] == pytest.approx(10)
    assert found["e2e_ms"]["p50"] == pytest.approx(200)


def test_prefill_counts_overlapping_waits_once_and_cached_tokens_never():
    together = [outcome(), outcome()]
    together[1].cached_tokens = 15
    assert figures(together, Targets())["prefill_tokens_per_s"] == pytest.approx((20 + 5) / 0.1)


def test_pieces_of_several_tokens_are_told():
    several = outcome(tokens=11)
    several.output_tokens = 33
    found = figures([several], Targets())
    assert found["tokens_per_piece"] == 3
    assert tpot_s(several) == pytest.approx(0.1 / 32)


def test_one_token_has_no_time_per_token():
    assert tpot_s(outcome(tokens=1)) is None


def test_an_answer_without_text_has_an_end_but_no_first_token():
    found = figures([outcome(tokens=0)], Targets())
    assert found["completed"] == 1
    assert found["ttft_ms"]["count"] == 0
    assert found["e2e_ms"]["count"] == 1


def test_goodput_counts_what_keeps_every_limit():
    slo = Targets(ttft_ms=150, tpot_ms=20, percentile=90)
    good, late, slow = outcome(), outcome(first=0.2), outcome(gap=0.03)
    broken = outcome(failure="engine_died")
    assert [is_good(each, slo) for each in (good, late, slow, broken)] == [True, False, False, False]
    found = figures([good] * 44, slo)
    assert found["slo"]["verdict"] == "pass"
    assert figures([good] * 43, slo)["slo"]["verdict"] == "inconclusive"
    mixed = figures([good] * 50 + [late] * 30 + [broken] * 20, slo)
    assert mixed["slo"]["verdict"] == "fail"
    assert mixed["slo"]["good"] == 50
    assert mixed["goodput_per_s"] == pytest.approx(50 / mixed["duration_s"], rel=1e-3)


def test_every_figure_has_its_definition():
    found = figures([outcome()], Targets())
    for name in ("ttft_ms", "ttfat_ms", "itl_ms", "tpot_ms", "e2e_ms", "duration_s", "output_tokens_per_s",
                 "total_tokens_per_s", "prefill_tokens_per_s", "goodput_per_s", "slo"):  # fmt: skip
        assert name in found
        assert name in DEFINITIONS


def test_a_distribution_ascends_to_the_largest():
    found = distribution([outcome(first=0.1 * i) for i in range(1, 50)])
    assert len(found["ttft_ms"]) == 101
    assert found["ttft_ms"] == sorted(found["ttft_ms"])
    assert found["ttft_ms"][-1] == pytest.approx(4900)
    assert distribution([])["itl_ms"] == []
