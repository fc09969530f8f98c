"""Upgrading old stores: one step a schema version, all of them in one transaction.

A step is frozen once it is released: it names tables and columns as they were then, so nothing
here uses `schedenv.records.schema`, which describes today's.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from schedenv.errors import StoreError
from schedenv.records.record import UnreadableRowError, digest, record_of

LEGACY_RUN = "before-schema-2"
"""The run that all records of a version 1 store are counted to; it did not know runs."""

_BATCH = 500


def migrate(connection: sa.Connection, version: int) -> None:
    """Bring the tables of an older version up to date, within the caller's transaction."""
    while version in STEPS:
        STEPS[version](connection)
        version += 1


def back_up(path: Path, version: int) -> Path:
    """Copy a SQLite store, its log included, to a file beside it.

    An older copy of the same version is kept, and nothing is done: the first one is the original.

    Returns:
        The copy.

    Raises:
        StoreError: The copy cannot be written.
    """
    copy = path.with_name(f"{path.name}.v{version}.bak")
    if copy.exists():
        return copy
    partial = copy.with_name(copy.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(partial)) as target,
        ):
            source.backup(target)
        partial.replace(copy)
    except (sqlite3.Error, OSError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StoreError(
            f"{path} has schema version {version} and must be upgraded, but no copy of it can be "
            f"written to {copy}: {error}; free some space, or copy the store elsewhere"
        ) from error
    return copy


def _runs_and_digests(connection: sa.Connection) -> None:
    """Version 1 to 2: the table of runs, each record's run, and what tells copies apart."""
    for statement in (
        "CREATE TABLE runs (id VARCHAR(64) NOT NULL PRIMARY KEY, task_hash VARCHAR(16) NOT NULL, "
        "task_name TEXT NOT NULL, agent TEXT, seed BIGINT, host TEXT, details TEXT NOT NULL, "
        "started_at VARCHAR(32) NOT NULL)",
        "CREATE INDEX ix_runs_task_hash ON runs (task_hash)",
        "ALTER TABLE records ADD COLUMN run_id VARCHAR(64)",
        "ALTER TABLE records ADD COLUMN digest VARCHAR(32) DEFAULT '' NOT NULL",
        "CREATE INDEX ix_records_run_id ON records (run_id)",
        "CREATE INDEX ix_records_digest ON records (digest)",
        "INSERT INTO runs (id, task_hash, task_name, details, started_at) "
        f"SELECT '{LEGACY_RUN}', task_hash, task_name, '{{}}', created_at FROM records "
        "ORDER BY id LIMIT 1",
        f"UPDATE records SET run_id = '{LEGACY_RUN}'",
    ):
        connection.exec_driver_sql(statement)
    last = 0
    while True:
        rows = connection.execute(
            sa.text("SELECT * FROM records WHERE id > :last ORDER BY id LIMIT :count"),
            {"last": last, "count": _BATCH},
        ).mappings()
        digests = [{"row": row["id"], "digest": _digest(row)} for row in rows]
        if not digests:
            return
        connection.execute(sa.text("UPDATE records SET digest = :digest WHERE id = :row"), digests)
        last = digests[-1]["row"]


def _digest(row: sa.RowMapping) -> str:
    try:
        record = record_of(dict(row))
    except UnreadableRowError:
        text = str(row["result"]).encode(errors="surrogateescape")
        return hashlib.sha256(text).hexdigest()[:32]
    return digest(
        record.task_hash,
        record.fingerprint,
        record.space_version,
        record.canonical,
        record.result,
    )


STEPS: dict[int, Callable[[sa.Connection], None]] = {1: _runs_and_digests}
"""By the version that a step starts from; it leads to the next one."""
