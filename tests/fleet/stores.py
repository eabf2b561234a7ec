"""Stores to test with: SQLite in a folder, and a real PostgreSQL where this machine has one."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from temper.fleet.store import Store
from temper.profile import schema
from temper.profile.schema import Profile


def fake(script: str = "echo", seed: int = 0, **fields) -> Profile:
    return Profile(engine=schema.FakeEngine(script=script, seed=seed, **fields))


def find_postgres() -> Path | None:
    """The folder of a PostgreSQL server's programs."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The URL of a server of its own, on a socket in `folder`."""
    programs = find_postgres()
    if programs is None:
        pytest.skip("no PostgreSQL server on this machine (Debian: apt-get install postgresql)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (pip install 'temper-llm[postgres]')")
    owner = {}
    if os.getuid() == 0:  # it refuses to run as root
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")
        os.chown(folder, user.pw_uid, user.pw_gid)
        owner = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data, quiet = folder / "data", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "temper", "--auth=trust", "--no-sync"], check=True, **owner, **quiet
    )
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    control = [programs / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "-o", options, "start"], check=True, **owner, **quiet)
    try:
        yield f"postgresql://temper@/postgres?host={folder}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, **owner, **quiet)


def served(store: Store, name: str = "default", session: str = "s1") -> str:
    """A deployment with one server alive; the version it serves."""
    base = store.versions.add(fake(), {})
    store.deployments.begin(name, base.id)
    store.deployments.report(session, name, "http://127.0.0.1:1", base.id)
    return base.id


def dispatch(store: Store, rollout: str, number: int, arm: str, share: float, unit: str | None = None, **how) -> None:
    """A row as a server's journal writes it; `how` are its columns once it ended."""
    outcome = {"outcome": "ok", "ttft_ms": 10.0, "e2e_ms": 100.0, "prompt_tokens": 5, "output_tokens": 10, **how}
    now = store.database.now()
    row = {
        "session": "s1",
        "number": number,
        "deployment": "default",
        "version": "v",
        "rollout": rollout,
        "arm": arm,
        "share": share,
        "unit": unit,
        "dispatched_at": now,
        "ended_at": now if outcome["outcome"] else None,
        **outcome,
    }
    marks = ", ".join("?" * len(row))
    store.database.change(f"INSERT INTO requests ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
