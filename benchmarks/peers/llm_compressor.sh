#!/usr/bin/env bash
# Sets llm-compressor (vLLM's quantizer) up beside Temper, in an environment of its own: the judge of our GPTQ and AWQ.
# Usage: llm_compressor.sh FOLDER   (then: make prove quantize ARGS='--llm-compressor FOLDER')
set -euo pipefail
folder=${1:?usage: llm_compressor.sh FOLDER}
mkdir -p "$folder" && cd "$folder"
if ! env/bin/python -c 'import llmcompressor' 2>/dev/null; then
  [ -d env ] || python3 -m venv env
  env/bin/pip install -q --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu "torch==2.13.0+cpu" ||
    env/bin/pip install -q "torch==2.13.0"
  env/bin/pip install -q "llmcompressor==0.14.*"
fi
echo "$PWD"
