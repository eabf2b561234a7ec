from __future__ import annotations

import pytest

from temper import api
from temper.engines.openai.endpoint import Endpoint, find
from temper.errors import Invalid, NotFound
from temper.profile import store
from temper.profile.schema import OpenAIEngine, Profile


@pytest.mark.parametrize(
    ("given", "url", "root"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("https://api.deepseek.com/v1/", "https://api.deepseek.com/v1", "https://api.deepseek.com"),
        ("http://h/openai", "http://h/openai", "http://h/openai"),
    ],
)
def test_addresses_are_completed(given, url, root):
    assert Endpoint(given).url == url
    assert Endpoint(given).root == root


@pytest.mark.parametrize(
    "given", ["", "127.0.0.1:8000", "ftp://h", "http://", "http://h:99999", "http://u:p@h", "http://h?q"]
)
def test_what_is_no_address_is_refused(given):
    with pytest.raises(Invalid) as caught:
        Endpoint(given)
    assert caught.value.param == "url"


def test_keys_come_from_the_environment_or_a_file_and_are_not_shown(tmp_path):
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "endpoints.toml").write_text(
        "[a]\nurl = 'http://a'\nkey_env = 'SOME_KEY'\n"
        f"[b]\nurl = 'http://b'\nkey_file = '{tmp_path / 'key'}'\n[c]\nurl = 'http://c'\n"
    )
    assert find("a", tmp_path, {"SOME_KEY": "from-env"}).api_key == "from-env"
    assert find("b", tmp_path, {}).api_key == "from-file"
    assert find("c", tmp_path, {}).api_key is None
    assert "from-file" not in repr(find("b", tmp_path, {}))
    with pytest.raises(Invalid, match="SOME_KEY is not set"):
        find("a", tmp_path, {})
    with pytest.raises(NotFound, match=r"no endpoint is called 'aa' .did you mean 'a'"):
        find("aa", tmp_path, {})


def test_mistakes_in_the_file_are_named(tmp_path):
    file = tmp_path / "endpoints.toml"
    with pytest.raises(NotFound, match=r"write \[x\] with its url into"):
        find("x", tmp_path, {})
    for text, said in (("[x]\nurll = 'http://x'", "did you mean 'url'"), ("[x]", "needs 'url'"),
                       ("x = 3", "must be a table"),
                       ("[x", "not TOML"), ("[x]\nurl='http://x'\nkey_file='/none'", "cannot be read")):  # fmt: skip
        file.write_text(text)
        with pytest.raises(Invalid, match=said):
            find("x", tmp_path, {})


def test_a_version_id_does_not_know_where_the_server_is(tmp_path):
    """The same profile at two places is one version: addresses and keys are no part of it."""
    profile = Profile(engine=OpenAIEngine(endpoint="local", model="m"))
    assert "http" not in store.canonical_json(profile, {})
    ids = set()
    for port in (8001, 8002):
        home = tmp_path / str(port)
        home.mkdir()
        (home / "endpoints.toml").write_text(f"[local]\nurl = 'http://127.0.0.1:{port}'\n")
        engine = api.build(profile, api.place({}, home))
        assert engine.stats().details["endpoint"] == f"http://127.0.0.1:{port}/v1"
        ids.add(store.version_id(profile, {}))
    assert len(ids) == 1
