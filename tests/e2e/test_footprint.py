"""Memory of the default deployment. (The start time is a figure, not a test: `make prove start`.)"""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.e2e.conftest import serving


def test_all_processes_stay_under_400_mb_without_kv(tmp_path: Path):
    with serving(tmp_path) as server:
        body = {"model": "default", "messages": [{"role": "user", "content": "Name three rivers."}], "max_tokens": 32}
        assert httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
        kv_peak = server.metric("temper:kv_peak_bytes")
        total = server.pss_bytes() - kv_peak
        print(f"PSS of all processes without KV: {total / 1e6:.0f} MB")
        assert total < 400e6
