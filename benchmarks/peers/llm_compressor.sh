#!/usr/bin/env bash
# Sets llm-compressor (vLLM's quantizer) up beside Temper, in an environment of its own: the judge of our GPTQ and AWQ.
# Usage: llm_compressor.sh FOLDER   (then: make prove quantize ARGS='--llm-compressor FOLDER')
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: llm_compressor.sh FOLDER}
mkdir -p "$folder" && cd "$folder"
if ! env/bin/python -c 'import llmcompressor' 2>/dev/null; then
  [ -d env ] || python3 -m venv env
  "$here/cpu_torch.sh" env
  env/bin/pip install -q "llmcompressor==0.14.*"
fi
echo "$PWD"
