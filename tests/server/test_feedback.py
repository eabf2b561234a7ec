"""Ratings over HTTP: kept, taken back, summed up."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from temper.measure.quality.ratings import Ratings
from temper.server import ServerSettings, create_app
from temper.server.feedback import create_router
from tests.server.conftest import fake


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "ratings.sqlite"


def client(path: Path, **settings: object) -> TestClient:
    app = create_app({"echo": fake("echo")}, extensions=[create_router(path)], settings=ServerSettings(**settings))
    return TestClient(app, base_url="http://localhost")


def rated(client: TestClient, **body: object) -> httpx.Response:
    return client.post("/v1/feedback", json=body)


def test_ratings_are_kept_and_summed_up(path):
    with client(path) as http:
        conversation = [{"role": "user", "content": "hi"}]
        for number, rating in enumerate(["good", "good", "bad"]):
            found = rated(http, id=f"c-{number}", model="echo", rating=rating, messages=conversation, answer="hi")
            assert found.json() == {"object": "feedback", "id": f"c-{number}", "rating": rating}
        (row,) = http.get("/v1/feedback").json()["data"]
    assert (row["model"], row["good"], row["ratings"]) == ("echo", 2, 3)
    assert row["interval"][0] < row["share_good"] < row["interval"][1]
    assert Ratings(path).all()[0]["messages"] == conversation


def test_the_last_rating_counts_and_can_be_taken_back(path):
    with client(path) as http:
        rated(http, id="c-1", rating="good")
        rated(http, id="c-1", rating="bad")
        assert [row["rating"] for row in Ratings(path).all()] == ["bad"]
        rated(http, id="c-1", rating=None)
        assert http.get("/v1/feedback").json()["data"] == []


def test_each_key_has_a_voice_of_its_own(path):
    with client(path, api_keys=("one", "two")) as http:
        assert rated(http, id="c-1", rating="good").status_code == 401
        for key in ("one", "two"):
            http.post("/v1/feedback", json={"id": "c-1", "rating": "good"}, headers={"Authorization": f"Bearer {key}"})
    assert sorted(row["rater"] for row in Ratings(path).all()) == ["key-0", "key-1"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rating": "good"}, "id"),
        ({"id": "c", "rating": "splendid"}, "rating"),
        ({"id": "c", "rating": "good", "stars": 5}, "stars"),
        ({"id": "c", "rating": "good", "comment": "x" * 5000}, "comment"),
        ({"id": "", "rating": "good"}, "id"),
    ],
)
def test_what_is_no_rating_is_refused_by_name(path, body, param):
    with client(path) as http:
        found = http.post("/v1/feedback", json=body)
    assert found.status_code == 400
    assert found.json()["error"]["param"] == param
    assert not path.exists()


def test_only_what_is_served_can_be_rated(path):
    with client(path) as http:
        assert rated(http, id="c", model="other", rating="good").status_code == 404
