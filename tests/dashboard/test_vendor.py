"""Vendored files are what their README says they are."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import temper.dashboard

VENDOR = Path(temper.dashboard.__file__).parent / "static" / "vendor"
ROW = re.compile(r"^\| `([^`]+)` \| [\w.]+ [\d.]+ \| `[^`]+` \| [\w-]+, `([^`]+)` \| `([0-9a-f]{64})` \|$", re.M)


def test_each_file_has_its_hash_and_its_licence() -> None:
    rows = ROW.findall((VENDOR / "README.md").read_text("utf-8"))
    for name, licence, digest in rows:
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name
        assert (VENDOR / licence).stat().st_size > 300
    licences = {licence for _, licence, _ in rows}
    assert {entry.name for entry in VENDOR.iterdir()} == {name for name, _, _ in rows} | licences | {"README.md"}
