"""`temper trace` as it is typed, on the fake engine: in this process, and as a server of its own."""

from __future__ import annotations

import json

import pytest

from temper.cli.app import run

FAST = ["trace", "--engine", "fake:words", "--requests", "3", "--input-tokens", "6", "--output-tokens", "4",
        "--warmup", "1"]  # fmt: skip


def test_text_for_people(capsys):
    assert run([*FAST, "--in-process", "--concurrency", "1,2"]) == 0
    out = capsys.readouterr().out
    assert "1 at once: 3/3 requests" in out
    assert "2 at once: 3/3 requests" in out
    assert "a request takes" in out
    assert "not told: HTTP: the engine was asked in this process" in out


def test_a_server_of_its_own_tells_what_http_costs(capsys, tmp_path):
    html = tmp_path / "trace.html"
    assert run([*FAST, "--json", "--html", str(html), "--home", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "temper.trace/1"
    assert {"machine", "definitions", "limits", "runs"} <= set(found)
    (one,) = found["runs"]
    assert [stage["stage"] for stage in one["stages"]] == ["HTTP"]
    assert one["stages"][0]["seconds"] > 0
    assert one["request_ms"]["decode"] is not None
    assert html.read_text().startswith("<!doctype html>")


def test_a_failed_request_is_exit_code_1(capsys):
    assert run([*FAST[:2], "fake:cut:2", *FAST[3:], "--in-process", "--output-tokens", "5"]) == 1
    assert "failed: 3 × engine_failure" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "http://127.0.0.1:9", "--in-process"], "it goes with neither --in-process nor profile options"),
        (["--concurrency", "2", "--rate", "3"], "not both"),
    ],
)
def test_wrong_usage_is_2(capsys, arguments, said):
    assert run(["trace", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
