"""Records as a Parquet table, one row a record, for pandas, polars or DuckDB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from schedenv.measure.table_file import require_arrow
from schedenv.records.export import new_file
from schedenv.records.record import Record, Run

FILE = "records.parquet"


def export_parquet(records: Sequence[Record], runs: dict[str, Run], directory: Path) -> Path:
    """Write `records.parquet`; times are seconds, samples a list in each row.

    Args:
        records: Of any tasks and hardware.
        runs: Of the store, by id; give each record's agent, seed and host.
        directory: Where the file goes.

    Returns:
        The file.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OutputDirError: The file is there already, or cannot be written.
    """
    arrow, parquet = require_arrow("an export to Parquet")
    path = new_file(directory, FILE)
    table = arrow.Table.from_pylist(
        [_row(record, runs) for record in records], schema=_schema(arrow)
    )
    parquet.write_table(table, path, compression="zstd")
    return path


def _row(record: Record, runs: dict[str, Run]) -> dict[str, Any]:
    result = record.result
    run = runs.get(record.run_id or "")
    return {
        "id": record.id,
        "created_at": record.created_at,
        "task": record.task_name,
        "task_hash": record.task_hash,
        "hardware": record.fingerprint,
        "space_version": record.space_version,
        "run": record.run_id,
        "agent": run.agent if run else None,
        "seed": run.seed if run else None,
        "host": run.host if run else None,
        "sketch": result.point.sketch,
        "values": list(result.point.values),
        "canonical": record.canonical,
        "code": result.code,
        "status": result.status.value,
        "reason": result.reason,
        "estimate_s": result.estimate_s,
        "samples_s": list(result.samples_s),
        "drifts": list(result.drifts),
        "slowdowns": list(result.slowdowns),
        "counted": list(result.counted),
        "early_stopped": result.early_stopped,
        "max_error": result.max_error,
        **msgspec.to_builtins(result.phases),
        "elapsed_s": record.elapsed_s,
        "conditions": msgspec.json.encode(dict(record.conditions)).decode(),
    }


def _schema(arrow: Any) -> Any:
    text, number, real = arrow.string(), arrow.int64(), arrow.float64()
    kinds = {
        "id": number, "created_at": text, "task": text, "task_hash": text, "hardware": text,
        "space_version": number, "run": text, "agent": text, "seed": number, "host": text,
        "sketch": number, "values": arrow.list_(number), "canonical": text, "code": text,
        "status": text, "reason": text, "estimate_s": real, "samples_s": arrow.list_(real),
        "drifts": arrow.list_(real), "slowdowns": arrow.list_(real),
        "counted": arrow.list_(arrow.bool_()),
        "early_stopped": arrow.bool_(), "max_error": real, "apply_s": real, "build_s": real,
        "jit_s": real, "verify_s": real, "run_s": real, "elapsed_s": real, "conditions": text,
    }  # fmt: skip
    return arrow.schema(list(kinds.items()))
