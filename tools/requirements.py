"""Print the packages that pyproject.toml names under `build` (the build system) or an extra, shell-quoted."""

import shlex
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
groups = {"build": project["build-system"]["requires"], **project["project"]["optional-dependencies"]}
print(shlex.join(package for name in sys.argv[1:] for package in groups[name]))
