"""A checkpoint rolled out over another under traffic: server, controller and callers are processes of their own."""

from __future__ import annotations

from pathlib import Path

from temper import api
from temper.api.canary import canary
from temper.refine.course import Canary
from tests.tiny_models import write_tiny_folder


def test_callers_are_moved_to_the_candidate_and_lose_nothing(tmp_path: Path):
    control = write_tiny_folder(tmp_path / "control", max_position_embeddings=1024)
    candidate = write_tiny_folder(tmp_path / "candidate", seed=1, max_position_embeddings=1024)
    folder = tmp_path / "canary"
    folder.mkdir()
    config = Canary(steps=(0.5, 1.0), min_requests=20, errors=0.3, slower=9.0, callers=2, max_minutes=2.0)
    told: list[str] = []
    found = canary(
        control, candidate, config, folder, suite="arithmetic", seed=7, max_tokens=4,
        tell=lambda what, done, total: told.append(what),
        where=api.Place(home=tmp_path / "home", cache_dir=tmp_path / "cache"),
    )  # fmt: skip
    assert (found["state"], found["verdict"]) == ("promoted", "pass"), found
    assert found["requests_judged"] >= 20
    assert set(found["callers"]) == {"ok"}
    assert "rollout at 50%" in told
