"""What a proof has measured so far, in the cache folder: one that ends goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Kept:
    """Findings by name, one JSON line each. Those made under other settings are no part of the proof."""

    def __init__(self, path: Path, settings: Any, *, fresh: bool = False) -> None:
        """`settings`: all that a finding depends on, as JSON has it. `fresh`: forget what is there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)
        self._path, self._settings = path, settings
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        entries = [entry for entry in map(json.loads, lines) if entry["settings"] == settings]
        self.found: dict[str, Any] = {entry["name"]: entry["found"] for entry in entries}

    def add(self, name: str, found: Any) -> None:
        """Keep one more, at once."""
        self.found[name] = found
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "settings": self._settings, "found": found}) + "\n")
        print(f"measured: {name}", flush=True)
