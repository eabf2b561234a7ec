#!/usr/bin/env bash
# Sets OpenVINO GenAI up beside Temper, in an environment of its own that holds Temper too: GenAI has no server, so
# `temper serve` with the openvino engine is its server. Usage: openvino.sh FOLDER
# (`temper bench --engines openvino` looks for FOLDER = PEERS/openvino)
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:?usage: openvino.sh FOLDER}
mkdir -p "$folder" && cd "$folder"
if ! env/bin/python -c 'import openvino_genai, temper' 2>/dev/null; then
  [ -d env ] || python3 -m venv env
  env/bin/pip install -q "openvino-genai==2026.4.*"
  env/bin/pip install -q "$root"
fi
echo "$PWD"
