"""`temper advise` as it is typed; the model is described, not fetched."""

from __future__ import annotations

import json

from temper.cli.app import run

MODEL = ["advise", "--parameters", "7e9", "--weight-bytes", "14e9", "--tokens-per-s", "500", "--price-per-hour", "2",
         "--tokens-per-month", "1e9"]  # fmt: skip


def test_the_arithmetic_for_people(capsys):
    assert run([*MODEL, "--quality", "0.8", "--quality-floor", "0.7"]) == 0
    out = capsys.readouterr().out
    for part in ("work: 6 × 1.75e+09", "the guides' figure", "advice: ", "cheaper from month"):
        assert part in out


def test_one_document_for_programs(capsys):
    assert run([*MODEL, "--quality", "0.8", "--quality-floor", "0.99", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "temper.advise/1"
    assert (found["advice"], len(found["routes"])) == (None, 4)
    assert found["situation"]["tokens_per_s"] == 500


def test_wrong_usage_is_2(capsys):
    assert run(["advise"]) == 2
    assert run([*MODEL, "--horizon-months", "0"]) == 2
