"""Programs that want out. Every test is about what the outcome says, and about what is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from temper.errors import Invalid, Unsupported
from temper.measure.sandbox import policy
from temper.measure.sandbox.policy import Limits
from temper.measure.sandbox.run import Sandbox

TIGHT = Limits(wall_s=3.0, cpu_s=2.0, memory_bytes=256 << 20, output_bytes=64 << 10, file_bytes=1 << 20, threads=8)


@pytest.fixture(scope="module")
def sandbox():
    box = Sandbox(TIGHT)
    try:
        assert box.isolation.full
    except Unsupported as error:
        pytest.skip(f"no sandbox here: {error}")
    return box


def test_a_program_computes_and_says_what_kept_it_in(sandbox):
    outcome = sandbox.run("import math, json\nprint(json.dumps(math.factorial(20)))")
    assert (outcome.status, outcome.exit_code, outcome.stdout) == ("passed", 0, "2432902008176640000\n")
    assert outcome.isolation.layers == policy.LAYERS
    assert all(how.startswith("refused") for how in outcome.isolation.probed.values())
    assert outcome.cpu_s > 0
    assert outcome.max_rss_bytes > 1 << 20


def test_an_error_is_a_failure(sandbox):
    outcome = sandbox.run("assert 1 + 1 == 3, 'wrong sum'")
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    assert "wrong sum" in outcome.stderr


FORGED = """
import os
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b"0" * 32 + b"\\n")
    except OSError:
        pass
os._exit(0)
"""


@pytest.mark.parametrize(
    "program",
    [
        "print('passed'); raise SystemExit(0)",
        "import os; print('passed', flush=True); os._exit(0)",
        FORGED,
    ],
    ids=["exit", "hard exit", "forged nonce"],
)
def test_saying_passed_is_not_passing(sandbox, program):
    outcome = sandbox.run(program)
    assert not outcome.passed


def test_a_fork_bomb_never_starts(sandbox):
    outcome = sandbox.run("import os\nwhile True:\n    os.fork()")
    assert outcome.status == "failed"
    assert "PermissionError" in outcome.stderr


def test_a_thread_bomb_runs_into_its_limit(sandbox):
    program = "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(60,)).start()"
    outcome = sandbox.run(program)
    assert outcome.status in ("memory", "timeout")
    assert outcome.wall_s < TIGHT.wall_s + 2


@pytest.mark.parametrize(
    ("act", "error"),
    [
        ("__import__('socket').create_connection(('127.0.0.1', 9), 1)", "PermissionError"),
        ("__import__('socket').getaddrinfo('example.org', 80)", "gaierror"),
        ("__import__('subprocess').run(['/bin/true'])", "PermissionError"),
        ("open('/proc/1/environ').read()", "PermissionError"),
        ("__import__('os').listdir('/proc')", "PermissionError"),
        (f"__import__('os').kill({os.getpid()}, 9)", "PermissionError"),
        ("open('/etc/passwd').read()", "PermissionError"),
        (f"open({str(Path(__file__).parent.parent / 'virtual.py')!r}).read()", "PermissionError"),
        ("open('new', 'w')", "PermissionError"),
    ],
)
def test_what_lies_outside_stays_outside(sandbox, act, error):
    outcome = sandbox.run(act)
    assert outcome.status == "failed"
    assert error in outcome.stderr.strip().splitlines()[-1]


RAW = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
for name, number in {calls}:
    ctypes.set_errno(0)
    assert libc.syscall(number, 0, 0, 0, 0, 0) == -1, name
    assert ctypes.get_errno() == errno.EPERM, (name, errno.errorcode[ctypes.get_errno()])
"""


def test_system_calls_are_refused_whatever_makes_them(sandbox):
    from temper.measure.sandbox.seccomp import DENIED

    column = 0 if os.uname().machine == "x86_64" else 1
    calls = [(name, number[column]) for group in DENIED.values() for name, number in group.items() if number[column]]
    outcome = sandbox.run(RAW.format(calls=calls))
    assert outcome.passed, outcome.stderr


def test_the_environment_is_empty(sandbox, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "do-not-tell")
    outcome = sandbox.run("import os; print(sorted(os.environ)); print(open('/dev/null').read())")
    assert outcome.passed
    assert "SECRET" not in outcome.stdout


def test_a_symbolic_link_leads_nowhere(sandbox, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("do not tell")
    outcome = sandbox.run(f"import os\nos.symlink({str(secret)!r}, 'link')\nprint(open('link').read())", writable=True)
    assert outcome.status == "failed"
    assert "do not tell" not in outcome.stdout


def test_a_flood_is_stopped(sandbox):
    outcome = sandbox.run("while True: print('x' * 10000)")
    assert outcome.status == "output"
    assert len(outcome.stdout) < TIGHT.output_bytes + 70_000


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_time_is_up(sandbox, program):
    hasty = Sandbox(Limits(wall_s=1.0, cpu_s=1.0))
    begin = time.monotonic()
    outcome = hasty.run(program)
    assert outcome.status == "timeout"
    assert time.monotonic() - begin < 10


def test_cpu_time_is_up_before_the_clock(sandbox):
    outcome = Sandbox(Limits(wall_s=60.0, cpu_s=1.0)).run("while True: pass")
    assert outcome.status == "timeout"
    assert outcome.cpu_s < 2


def test_memory_is_bounded(sandbox):
    outcome = sandbox.run("x = bytearray(1 << 30)")
    assert outcome.status == "memory"
    assert sandbox.run("x = []\nwhile True: x.append('y' * 1000000)").status == "memory"


def test_files_lie_beside_the_program_and_disk_is_bounded(sandbox):
    outcome = sandbox.run("print(open('data.txt').read())", files={"data.txt": "twelve"})
    assert outcome.stdout == "twelve\n"
    assert sandbox.run("open('out', 'w').write('fine')", writable=True).passed
    many = "i = 0\nwhile True:\n    i += 1\n    open(f'f{i}', 'wb').write(bytes(100000))"
    assert sandbox.run(many, writable=True).status in ("disk", "failed")
    assert sandbox.run("open('big', 'wb').write(bytes(1 << 24))", writable=True).status in ("disk", "failed")
    with pytest.raises(Invalid, match="plain name"):
        sandbox.run("", files={"../up": ""})


def test_nothing_is_left(sandbox):
    before = set(Path(tempfile.gettempdir()).glob("temper-sandbox-*"))
    program = "import os\nos.mkdir('shut'); open('shut/file', 'w'); os.chmod('shut', 0); os.chmod('.', 0)"
    assert sandbox.run(program, writable=True).passed
    sandbox.run("while True: print('x' * 10000)")
    assert set(Path(tempfile.gettempdir()).glob("temper-sandbox-*")) == before


def test_many_at_once(sandbox):
    found: list[str] = []
    run = lambda number: found.append(sandbox.run(f"print({number} ** 2)").stdout)  # noqa: E731
    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found, key=int) == [f"{number**2}\n" for number in range(8)]


# -- where a layer is missing --------------------------------------------------------------------------


def test_without_a_layer_it_refuses_unless_told(monkeypatch):
    monkeypatch.setattr(policy, "filter_bytes", lambda: b"")
    with pytest.raises(Unsupported, match="seccomp") as refused:
        Sandbox(TIGHT).run("print(1)")
    assert "--allow-weaker-isolation" in str(refused.value)
    weaker = Sandbox(TIGHT, allow_weaker=True)
    outcome = weaker.run("print(1)")
    assert outcome.passed
    assert not outcome.isolation.full
    assert "seccomp" in outcome.isolation.missing
    assert "landlock" in outcome.isolation.layers
    assert outcome.isolation.probed["start a process"] == "done"


def test_installed_packages_are_there_when_asked_for():
    box = Sandbox(Limits(memory_bytes=1 << 30), packages=True)
    assert box.run("import click; print(click.__name__)").stdout == "click\n"
    assert Sandbox(TIGHT).run("import click").status == "failed"


OLD_KERNEL = """
import errno, json, struct
from temper.errors import Unsupported
from temper.measure.sandbox import confine
from temper.measure.sandbox.run import Sandbox

code = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x00050000 | errno.ENOSYS), (0x06, 0, 0, 0x7FFF0000)]
confine._libc().prctl(38, 1, 0, 0, 0)
confine.seccomp(b"".join(struct.pack("=HBBI", *each) for each in code))
try:
    Sandbox().run("print(1)")
except Unsupported as error:
    refused = str(error)
outcome = Sandbox(allow_weaker=True).run("print(1)")
print(json.dumps([refused, outcome.stdout, outcome.isolation.document()]))
"""
"""A process that answers `landlock_create_ruleset` as a kernel without Landlock does."""


def test_a_kernel_without_landlock():
    ran = subprocess.run([sys.executable, "-c", OLD_KERNEL], capture_output=True, text=True, check=True)
    refused, stdout, isolation = json.loads(ran.stdout)
    assert "this kernel has no Landlock" in refused
    assert "--allow-weaker-isolation" in refused
    assert stdout == "1\n"
    assert (isolation["full"], isolation["layers"]) == (False, ["limits", "privileges", "seccomp"])
    assert isolation["probed"]["read a file outside"] == "done"
    assert isolation["probed"]["open a socket"].startswith("refused")
