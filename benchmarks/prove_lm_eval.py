"""lm-eval's `local-completions` against `temper serve`, on a task made from local data.

Installs the extra `evals` where it is missing (it is too heavy for `make test`), then runs
tests/e2e/test_lm_eval.py, which holds the task and what must come out.

    make prove lm_eval
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import report

ROOT = Path(__file__).parent.parent
TEST = "tests/e2e/test_lm_eval.py"


def main() -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if find_spec("lm_eval") is None or find_spec("tenacity") is None:
        subprocess.run([*pip, "lm-eval[api]>=0.4.9"], check=True)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", TEST, "-v", "-rA"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    said = [line for line in run.stdout.splitlines() if line.startswith(("PASSED", "FAILED", "ERROR", "SKIPPED"))]
    if run.returncode or not any(line.startswith("PASSED") for line in said):
        sys.exit(run.stdout[-4000:])
    body = "lm-eval, unchanged, against `temper serve` with the default model:\n\n" + "\n".join(f"- {x}" for x in said)
    report.write("lm_eval", "lm-eval's local-completions on a local task", body, {"tests": said})


if __name__ == "__main__":
    main()
