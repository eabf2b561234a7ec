#!/usr/bin/env bash
# Sets LiteLLM's proxy up beside Temper, in an environment of its own. Usage: litellm.sh FOLDER
# The release is pinned: 1.82.7 and 1.82.8 were malicious (github.com/BerriAI/litellm/issues/24512), so never take
# whatever is newest without looking.
set -euo pipefail
folder=${1:?usage: litellm.sh FOLDER}
version=1.100.5
mkdir -p "$folder" && cd "$folder"
if ! [ -x env/bin/litellm ] || [ "$(env/bin/pip show litellm 2>/dev/null | sed -n 's/^Version: //p')" != "$version" ]; then
  [ -d env ] || python3 -m venv env
  env/bin/pip install -q --disable-pip-version-check "litellm[proxy]==$version"
fi
echo "$PWD/env/bin"
