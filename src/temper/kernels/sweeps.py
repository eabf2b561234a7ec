"""Which way through a product is the fastest for how many rows: measured once on a machine, then remembered.

A product of quantized weights can be swept in up to three ways (`kernel_set.h`): directly, by panels that are widened
first, or by pairs of panels. All give the same bits, with `batch_invariant` too, so what is found changes nothing but
time. Where one begins to win depends on the CPU, its caches and the weight format; each instruction set has its usual
answer, and this asks the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from temper import machine
from temper.kernels import _native

Rows = tuple[int, int]
"""Rows from which on a product is swept by panels, and by pairs; `_native.NEVER` for not at all."""

_log = logging.getLogger(__name__)
_TRIED: Final = (4, 8, 12, 16, 24, 32, 48, 64, 96)
_DIRECT_MOST: Final = 48
"""Above, a product that widens its codes for each tile anew has lost everywhere."""
_PAIR_LEAST: Final = 16
"""Below, tiles of two panels have too few rows."""
_REPEATS: Final = 3
_BYTES: Final = 4 << 20
"""Of weights of a format that are swept: more than a core's own caches hold, a fifth of a second in all."""


def fastest(weights: Iterable[_native.PackedWeight], isa: str, threads: int, folder: Path) -> dict[str, Rows]:
    """The rows for the format of each of `weights`, all quantized: from the file in `folder`, else measured.

    A file that cannot be read is measured anew; one that cannot be written is done without.
    """
    by_format: dict[str, list[_native.PackedWeight]] = {}
    for weight in weights:
        by_format.setdefault(weight.format, []).append(weight)
    key = _key(isa, threads)
    path = folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    known = _read(path, key)
    missing = {name: same for name, same in by_format.items() if name not in known}
    if missing:
        known |= {name: measured(same, isa, threads) for name, same in missing.items()}
        _write(path, {"machine": key, "rows": known})
    return {name: known[name] for name in by_format}


def measured(weights: Sequence[_native.PackedWeight], isa: str, threads: int) -> Rows:
    """Where panels begin to beat the direct way with weights of one format, and pairs panels."""
    usual_panel, usual_pair = _native.sweep_rows(isa)
    panel_from = pair_from = _native.NEVER
    if usual_panel != _native.NEVER:
        tried = [rows for rows in _TRIED if rows <= _DIRECT_MOST]
        panel_from = _crossing(weights, isa, threads, tried, "direct", "panel", _DIRECT_MOST + 1)
    if usual_pair != _native.NEVER:
        tried = [rows for rows in _TRIED if rows >= _PAIR_LEAST]
        pair_from = max(panel_from, _crossing(weights, isa, threads, tried, "panel", "pair", _native.NEVER))
    return panel_from, pair_from


def _crossing(
    weights: Sequence[_native.PackedWeight],
    isa: str,
    threads: int,
    tried: Sequence[int],
    before: str,
    after: str,
    otherwise: int,
) -> int:
    """The fewest rows of `tried` from which on `after` always takes less time than `before`."""
    found = otherwise
    for rows in reversed(tried):
        best = dict.fromkeys((before, after), float("inf"))
        for _ in range(_REPEATS):  # in turns, for a machine is not equally fast all the time
            for sweep in best:
                taken = _native.time_linear(list(weights), rows, isa, threads, 1, sweep=sweep, most_bytes=_BYTES)
                best[sweep] = min(best[sweep], *taken)
        if best[after] >= best[before]:
            break
        found = rows
    return found


def _key(isa: str, threads: int) -> dict[str, object]:
    """What the figures hold for: another CPU, build or number of threads has its own."""
    here = machine.inspect()
    build = os.stat(_native.__file__)
    return {
        "cpu": here.cpu,
        "flags": here.isa,
        "build": [build.st_size, build.st_mtime_ns],
        "isa": isa,
        "threads": threads,
    }


def _read(path: Path, key: Mapping[str, object]) -> dict[str, Rows]:
    try:
        found = json.loads(path.read_text("utf-8"))
        rows = {str(name): (int(panel), int(pair)) for name, (panel, pair) in found["rows"].items()}
        whose = found["machine"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _log.warning("%s is not what was measured of the kernels (%s) and is made anew", path, error)
        return {}
    fits = all(1 <= panel <= pair <= _native.NEVER for panel, pair in rows.values())
    return rows if fits and whose == json.loads(json.dumps(key)) else {}


def _write(path: Path, found: Mapping[str, object]) -> None:
    """In one piece, or not at all."""
    with contextlib.suppress(OSError):  # a folder that cannot be written: measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            json.dump(found, file)
        os.replace(file.name, path)
