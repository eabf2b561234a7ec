"""A profile is a file: change it, compare it, keep it, and know it again by its hash."""

import sys
import tempfile
from pathlib import Path

from temper import api
from temper.errors import ProfileError
from temper.profile import store

profile = api.profile(sys.argv[1] if len(sys.argv) > 1 else "default")
small = api.profile(profile, max_waiting=2)
for change in store.diff(profile, small):
    print(f"{change.path}: {change.before} -> {change.after}")

with tempfile.TemporaryDirectory() as folder:
    store.save(small, Path(folder) / "small.toml")
    print("kept and read again:", store.load(Path(folder) / "small.toml") == small)

try:
    api.profile(profile, max_wating=2)
except ProfileError as error:
    print("refused:", error)

# The weights' own hash stands in the version id where the profile has a name for them.
hashes = dict.fromkeys(store.checkpoints(small), "0" * 64)
print("version:", store.version_id(small, hashes)[:12])
