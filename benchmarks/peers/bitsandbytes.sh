#!/usr/bin/env bash
# Sets bitsandbytes up beside Temper, in an environment of its own: the judge of our NF4 blocks.
# Usage: bitsandbytes.sh FOLDER   (then: make prove quantize ARGS='--bitsandbytes FOLDER')
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: bitsandbytes.sh FOLDER}
mkdir -p "$folder" && cd "$folder"
if ! env/bin/python -c 'import bitsandbytes' 2>/dev/null; then
  [ -d env ] || python3 -m venv env
  "$here/cpu_torch.sh" env
  env/bin/pip install -q "bitsandbytes==0.50.*" numpy
fi
echo "$PWD"
