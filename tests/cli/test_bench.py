"""`temper bench` as it is typed, on the fake engine."""

from __future__ import annotations

import json

import pytest

from temper.cli.app import run

FAST = [
    "bench",
    "--engine",
    "fake:words",
    "--requests",
    "6",
    "--input-tokens",
    "6",
    "--output-tokens",
    "4",
    "--warmup",
    "1",
]


def test_tables_for_people(capsys):
    assert run([*FAST, "--concurrency", "1,3"]) == 0
    out = capsys.readouterr().out
    assert "1 at once" in out
    assert "3 at once" in out
    assert "6/6" in out
    assert "not told: ttft_ms: p90 needs 29 values, p99 needs 299 values, but there are 6" in out


def test_one_document_for_programs(capsys, tmp_path):
    html = tmp_path / "charts.html"
    assert run([*FAST, "--rate", "500", "--json", "--html", str(html)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "temper.bench/1"
    assert {"machine", "definitions", "runs", "ratios", "missing"} <= set(found)
    (measured,) = found["runs"]
    for name in ("engine", "model", "rate", "output_tokens_per_s", "prefill_tokens_per_s", "ttft_ms", "itl_ms",
                 "e2e_ms", "failures", "rss_bytes"):  # fmt: skip
        assert name in measured
    assert set(measured["ttft_ms"]) >= {"p50", "p90", "p99", "reason"}
    assert html.read_text().startswith("<!doctype html>")


def test_failures_and_verdicts_are_exit_codes(capsys, tmp_path):
    assert run([*FAST[:2], "fake:cut:2", *FAST[3:], "--output-tokens", "5"]) == 1
    assert "failed: fake, 1 at once: 6 × engine_failure: the fake engine cut this stream" in capsys.readouterr().out
    file = tmp_path / "slo.toml"
    file.write_text("[slo]\ne2e_ms = 60000\npercentile = 99\n")
    assert run([*FAST, "--workload", str(file)]) == 3
    assert "inconclusive (6/6 good)" in capsys.readouterr().out
    file.write_text("[slo]\ne2e_ms = 0.0001\npercentile = 90\n")
    assert run([*FAST, "--workload", str(file)]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--concurrency", "many"], "write numbers like 1,8,32"),
        (["--concurrency", "2", "--rate", "3"], "not both"),
        (["--workload", "many-user"], "did you mean 'many-users'"),
        (["--input-tokens", "x"], "'x' is not a length"),
        (["--url", "http://127.0.0.1:9", "--engines", "native"], "--url measures a server as it is"),
        (["--url", "ftp://here"], "no http or https URL"),
        (["--engines", "lama"], "did you mean 'llamacpp'"),
    ],
)
def test_wrong_usage_is_2(capsys, arguments, said):
    assert run(["bench", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_nobody_at_the_url_is_a_failure(capsys):
    assert run(["bench", "--url", "http://127.0.0.1:9"]) == 1
    assert "is a server running at http://127.0.0.1:9/v1" in capsys.readouterr().err


def test_recorded_and_compared(capsys, tmp_path):
    home = ["--home", str(tmp_path)]
    paced = [*FAST, "--set", "ttft_ms=20", *home]
    assert run([*paced, "--compare"]) == 3
    assert "nothing like this was recorded: run it with --record first" in capsys.readouterr().out
    for number in (1, 2):
        assert run([*paced, "--record", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["recorded"] == number
    assert run([*FAST, "--set", "ttft_ms=400", *home, "--compare", "--json"]) == 1
    judged = json.loads(capsys.readouterr().out)["regression"]
    assert judged["verdict"] == "fail"
    assert len(judged["baseline"]) == 2
    assert any("another version of this profile" in note for note in judged["notes"])
    assert run([*FAST, "--set", "ttft_ms=400", *home, "--compare"]) == 1
    out = capsys.readouterr().out
    assert "against 2 recorded session(s): fail" in out
