#!/usr/bin/env bash
# Sets aiperf (NVIDIA's load generator) up in an environment of its own: the outside judge of `temper bench`.
# Usage: aiperf.sh FOLDER   (then: make prove loadgen ARGS='--aiperf FOLDER/env/bin/aiperf')
set -euo pipefail
folder=${1:?usage: aiperf.sh FOLDER}
mkdir -p "$folder" && cd "$folder"
if [ ! -x env/bin/aiperf ]; then
  [ -d env ] || python3 -m venv env
  env/bin/pip install -q "aiperf==0.13.*"
fi
echo "$PWD/env/bin/aiperf"
