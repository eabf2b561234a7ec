"""The tables of a store. What each row means is said by the module that writes it."""

from __future__ import annotations

TABLES = (
    # versions.py: stored profiles and what is known of them
    """CREATE TABLE IF NOT EXISTS versions (
        id TEXT PRIMARY KEY, profile TEXT NOT NULL, manifests TEXT NOT NULL, parent TEXT, origin TEXT NOT NULL,
        source TEXT NOT NULL, note TEXT NOT NULL, created_at DOUBLE PRECISION NOT NULL, retired_at DOUBLE PRECISION)""",
    """CREATE TABLE IF NOT EXISTS evidence (
        number {serial}, version TEXT NOT NULL, kind TEXT NOT NULL, verdict TEXT NOT NULL, document TEXT NOT NULL,
        at DOUBLE PRECISION NOT NULL)""",
    # deployments.py: what servers are to serve, and the servers that do
    """CREATE TABLE IF NOT EXISTS deployments (
        name TEXT PRIMARY KEY, base TEXT NOT NULL, production TEXT NOT NULL, reference TEXT)""",
    """CREATE TABLE IF NOT EXISTS servers (
        session TEXT PRIMARY KEY, deployment TEXT NOT NULL, url TEXT NOT NULL, serving TEXT NOT NULL, rollout TEXT,
        share DOUBLE PRECISION NOT NULL, error TEXT, started_at DOUBLE PRECISION NOT NULL,
        seen_at DOUBLE PRECISION NOT NULL)""",
    # rollouts.py: moving traffic to a version
    """CREATE TABLE IF NOT EXISTS rollouts (
        id TEXT PRIMARY KEY, deployment TEXT NOT NULL, candidate TEXT NOT NULL, control TEXT NOT NULL,
        plan TEXT NOT NULL, state TEXT NOT NULL, paused INTEGER NOT NULL, step INTEGER NOT NULL,
        share DOUBLE PRECISION NOT NULL, judged TEXT NOT NULL, reason TEXT NOT NULL, revision BIGINT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL, step_at DOUBLE PRECISION NOT NULL, ended_at DOUBLE PRECISION)""",
    "CREATE UNIQUE INDEX IF NOT EXISTS one_rollout ON rollouts (deployment) WHERE state = 'running'",
    """CREATE TABLE IF NOT EXISTS looks (
        number {serial}, rollout TEXT NOT NULL, num_requests BIGINT NOT NULL, at DOUBLE PRECISION NOT NULL,
        document TEXT NOT NULL)""",
    # journal.py: what became of each request
    """CREATE TABLE IF NOT EXISTS requests (
        session TEXT NOT NULL, number BIGINT NOT NULL, deployment TEXT NOT NULL, version TEXT NOT NULL, rollout TEXT,
        arm TEXT, share DOUBLE PRECISION, unit TEXT, dispatched_at DOUBLE PRECISION NOT NULL,
        ended_at DOUBLE PRECISION, outcome TEXT, ttft_ms DOUBLE PRECISION, e2e_ms DOUBLE PRECISION,
        prompt_tokens BIGINT, output_tokens BIGINT, quality DOUBLE PRECISION, judged INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (session, number))""",
    "CREATE INDEX IF NOT EXISTS requests_to_judge ON requests (rollout) WHERE rollout IS NOT NULL AND judged = 0",
    "CREATE INDEX IF NOT EXISTS requests_of_deployment ON requests (deployment, dispatched_at)",
    "CREATE INDEX IF NOT EXISTS requests_by_age ON requests (dispatched_at)",
    "CREATE TABLE IF NOT EXISTS units (rollout TEXT NOT NULL, unit TEXT NOT NULL, PRIMARY KEY (rollout, unit))",
    # store.py: who acts, and what happened
    "CREATE TABLE IF NOT EXISTS leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, expires_at DOUBLE PRECISION)",
    """CREATE TABLE IF NOT EXISTS events (
        number {serial}, deployment TEXT NOT NULL, rollout TEXT, version TEXT, kind TEXT NOT NULL, text TEXT NOT NULL,
        at DOUBLE PRECISION NOT NULL)""",
    # turns.py: the record of the loop
    """CREATE TABLE IF NOT EXISTS turns (
        number {serial}, deployment TEXT NOT NULL, started_at DOUBLE PRECISION NOT NULL, ended_at DOUBLE PRECISION,
        outcome TEXT NOT NULL, document TEXT NOT NULL)""",
)
