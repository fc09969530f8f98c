"""Tables of the record store, and their version."""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA_VERSION = 2
"""Raised with every change of the tables, together with a step in `schedenv.records.migrations`."""

metadata = sa.MetaData()

about = sa.Table(
    "about",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("task_hash", sa.String(16), nullable=False, index=True),
    sa.Column("task_name", sa.Text, nullable=False),
    sa.Column("agent", sa.Text),
    sa.Column("seed", sa.BigInteger),
    sa.Column("host", sa.Text),
    # Arguments, hardware, versions as JSON.
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("started_at", sa.String(32), nullable=False),
)

records = sa.Table(
    "records",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("task_hash", sa.String(16), nullable=False, index=True),
    sa.Column("task_name", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.String(128), nullable=False, index=True),
    sa.Column("space_version", sa.Integer, nullable=False),
    sa.Column("point", sa.Text, nullable=False),
    sa.Column("canonical", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("estimate_s", sa.Float),
    # The whole result as JSON: raw samples, phases, reason. The columns above are for queries.
    sa.Column("result", sa.Text, nullable=False),
    # Conditions of the measurement (threads, load, TVM version) as JSON.
    sa.Column("conditions", sa.Text, nullable=False),
    # Budget seconds that the run had spent when the result was known; resuming starts there.
    sa.Column("elapsed_s", sa.Float, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
    # The run that measured it, of the table `runs`; none for what was imported.
    sa.Column("run_id", sa.String(64), index=True),
    # What tells two measurements apart (see `schedenv.records.record.digest`): merging uses it.
    sa.Column("digest", sa.String(32), nullable=False, server_default="", index=True),
)
