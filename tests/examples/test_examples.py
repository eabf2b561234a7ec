"""Every example runs, on an engine without weights, and prints what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent.parent / "examples").glob("*.py"))

PRINTS = {
    "01_ask.py": r"Name three rivers\.\n\(\d+ tokens, ended by stop\)",
    "02_stream.py": r"\[reasoning\]\n(?s:.*)\[answer\]\n(?s:.*)Why is the sky blue\?",
    "03_many_at_once.py": r"the sea: A sentence about the sea:\n(?s:.*)- ",
    "04_sampling.py": r"(?s:.*)- .*\(the same again\)\n- .*\(the same again\)\n- .*\(the same again\)",
    "05_profiles.py": r"engine\.admission\.max_waiting: 256 -> 2\nkept and read again: True\n"
    r"refused: .*max_waiting.*\nversion: [0-9a-f]{12}",
    "06_serve.py": r"Say hello\.\n\(\d+ tokens\)",
    "07_import_a_command.py": r"'max_num_seqs': 64(?s:.*)--foo bar\nunchanged: True\n(?s:.*)"
    r"tuned: .*--max-num-seqs 128 --gpu-memory-utilization=0\.90 --foo bar --block-size 32\nanswer: Say hello\.\nlog: ",
    "08_tune.py": r"pass: \+\d+%, at least \+\d+%\n(?s:.*)max_sequences: 4 -> \d+\n(?s:.*)met on the way: \{",
    "09_recipe.py": r"r1-mini: SmolLM2(?s:.*)50 questions, such as:\nWhat is .*\n<think>\n(?s:.*)</think>\n\nAnswer: "
    r"-?\d+\nleft: exam-base, teach, exam-teach, distill(?s:.*)canary",
    "10_your_own_engine.py": r" goes to the sea\.\n\(4 words by balance / next-word\)",
}


def test_each_example_has_a_number_and_an_expectation():
    assert [path.name for path in EXAMPLES] == list(PRINTS)
    assert [int(path.name[:2]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_example_runs(path: Path, tmp_path: Path):
    script = {"02_stream.py": "think", "04_sampling.py": "words"}.get(path.name, "echo")
    profile = tmp_path / "fake.toml"
    profile.write_text(f'[engine]\nkind = "fake"\nscript = "{script}"\n')
    ran = subprocess.run([sys.executable, path, profile], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert re.search(PRINTS[path.name], ran.stdout), ran.stdout
