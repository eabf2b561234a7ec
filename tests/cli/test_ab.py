"""`temper ab` as it is typed, on fake engines with real clocks: what is planted is gross, so that no load hides it."""

from __future__ import annotations

import json

from temper.cli.app import run

FAST = ["--requests", "8", "--input-tokens", "6", "--output-tokens", "8", "--warmup", "2", "--units", "5"]


def told(capsys, *arguments: str) -> tuple[int, dict]:
    code = run(["ab", *arguments, *FAST, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_slow_b_fails_with_1(capsys, tmp_path):
    html = tmp_path / "page.html"
    code, found = told(capsys, "fake:words", "fake:words", "--set-b", "ttft_ms=150", "--html", str(html))
    assert code == 1
    assert found["schema"] == "temper.ab/1"
    assert (found["verdict"], found["metric"], found["better"]) == ("fail", "e2e_ms.p50", "lower")
    assert found["interval"][0] > 0.2
    assert found["machine"]
    assert found["differences"] == [{"field": "engine.ttft_ms", "a": 0.0, "b": 150.0}]
    assert found["design"]["unit"] == "engine start"
    assert found["arms"]["b"]["name"] == "fake:words ttft_ms=150"
    assert "Distribution of" in html.read_text()


def test_a_fast_b_passes_with_0(capsys):
    margins = ["--guardrail", "failures=0.2", "--guardrail", "ttft_ms.p50=off"]
    code, found = told(capsys, "fake:words", "fake:words", "--set-a", "ttft_ms=150", *margins)
    assert (code, found["verdict"]) == (0, "pass")
    assert [guard["metric"] for guard in found["guardrails"]] == ["failures", "output_tokens"]


def test_short_answers_and_failures_are_caught(capsys):
    code, found = told(capsys, "fake:count:8", "fake:count:2", "--set-a", "ttft_ms=150")
    assert (code, guardrails(found)["output_tokens"]) == (1, "fail")
    code, found = told(capsys, "fake:words", "fake:words+error-500%40")
    assert (code, guardrails(found)["failures"]) == (1, "fail")


def guardrails(found: dict) -> dict[str, str]:
    return {guard["metric"]: guard["verdict"] for guard in found["guardrails"]}


def test_a_against_itself_never_passes_on_40_requests(capsys):
    # 40 requests settle no guardrail, so it cannot pass; and it fails no oftener than one time in twenty.
    assert run(["ab", "fake:words", "fake:words", *FAST, "--set-a", "ttft_ms=30", "--set-b", "ttft_ms=30"]) in (1, 3)
    out = capsys.readouterr().out
    assert "inconclusive" in out
    assert "5 (pair of blocks in time), 8 requests in a block" in out
    assert "0/40" in out


def test_wrong_words_are_wrong_usage(capsys):
    for wrong in (["--metric", "e2e_ms.p5"], ["--guardrail", "failures=much"], ["--concurrency", "1,2"],
                  ["--guardrail", "failures=0"]):  # fmt: skip
        assert run(["ab", "fake:words", "fake:words", *FAST, *wrong]) == 2, wrong
    assert run(["ab", "http://127.0.0.1:9", "fake:words", "--set-a", "ttft_ms=1"]) == 2
    assert "fields of a server cannot be changed" in capsys.readouterr().err
