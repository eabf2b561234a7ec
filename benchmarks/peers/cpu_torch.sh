#!/usr/bin/env bash
# Installs torch for CPUs into an environment, for the peers that need it. Usage: cpu_torch.sh ENVIRONMENT
set -euo pipefail
pip=${1:?usage: cpu_torch.sh ENVIRONMENT}/bin/pip
# Where the CPU index cannot be reached, the second line must come soon: one retry, not five for every dependency.
"$pip" install -q --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu "torch==2.13.0+cpu" ||
  "$pip" install -q "torch==2.13.0"
