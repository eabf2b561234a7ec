from __future__ import annotations

from temper.measure.quality.ratings import Rating, Ratings


def test_shares_are_by_model_and_version(tmp_path):
    ratings = Ratings(tmp_path / "new" / "ratings.sqlite")
    for number in range(6):
        ratings.add(Rating(f"a{number}", "m", "good" if number else "bad", version="v1"))
    ratings.add(Rating("b", "m", "bad"))
    without, first = ratings.summary()
    assert (without["version"], without["share_good"]) == (None, 0.0)
    assert (first["version"], first["good"], first["ratings"]) == ("v1", 5, 6)
    assert first["interval"][0] < 5 / 6 < first["interval"][1]
    assert [row["answer_id"] for row in ratings.all("m")][-1] == "b"
    assert ratings.all("other") == []


def test_a_rating_is_replaced_or_taken_back(tmp_path):
    ratings = Ratings(tmp_path / "ratings.sqlite")
    ratings.add(Rating("a", "m", "good", comment="clear"))
    ratings.add(Rating("a", "m", "bad", rater="someone else"))
    ratings.add(Rating("a", "m", "bad"))
    assert {row["rater"]: row["rating"] for row in ratings.all()} == {"anonymous": "bad", "someone else": "bad"}
    assert ratings.remove("a", "anonymous")
    assert not ratings.remove("a", "anonymous")
