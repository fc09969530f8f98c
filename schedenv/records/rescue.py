"""Everything that can still be read of a damaged SQLite store, into a new one."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schedenv.errors import InputError, StoreError
from schedenv.records import schema
from schedenv.records.archive import Archive
from schedenv.records.migrations import LEGACY_RUN
from schedenv.records.pages import leaf_rows
from schedenv.records.record import (
    MAX_ROW_BYTES,
    Record,
    Run,
    UnreadableRowError,
    record_of,
    row_of,
    run_of,
)

_BATCH = 500
_RECORD_COLUMNS = tuple(str(column.name) for column in schema.records.columns)
_RUN_COLUMNS = tuple(str(column.name) for column in schema.runs.columns)
_VERSION_1_COLUMNS = len(_RECORD_COLUMNS) - 2


@dataclass
class Rescued:
    """What a rescue found.

    Attributes:
        records: How many were copied.
        from_pages: How many of them SQLite itself could not reach any more.
        unreadable: Numbers of the rows that are there but hold no record, with the reason.
        missing: How many numbers up to the highest one found belong to no row: what was lost,
            and what was deleted in earlier days.
        damage: SQLite's first complaint about the file; None if it has none.
    """

    records: int = 0
    from_pages: int = 0
    unreadable: dict[int, str] = field(default_factory=dict)
    missing: int = 0
    damage: str | None = None


def rescue(source: Path, target: Archive) -> Rescued:
    """Copy every readable record of a damaged store.

    The source is not touched: the work is done on a copy, since opening a file with a log changes
    both.

    Args:
        source: The damaged file; its log, if there is one, lies beside it.
        target: Where the records go; their runs too.

    Raises:
        InputError: The source does not exist.
        StoreError: It cannot be copied, or the target cannot be written.
    """
    if not source.is_file():
        raise InputError(f"{source} does not exist; expected the file of a record store")
    report = Rescued()
    rows: dict[int, dict[str, Any]] = {}
    runs: dict[str, Run] = {}
    with _copied(source) as copy:
        main, log = copy.read_bytes(), _read(_log_of(copy))
        report.damage = _read_by_sql(copy, rows, runs)
    records = _valid(rows, report)
    if report.damage is not None:
        by_page: dict[int, Record] = {}
        for number, columns in leaf_rows(main, log, 2 * MAX_ROW_BYTES):
            _sort_in(number, columns, by_page, runs, records, report)
        report.from_pages = len(by_page)
        records |= by_page
    for number in records:
        report.unreadable.pop(number, None)
    numbers = [*records, *report.unreadable]
    report.missing = max(numbers, default=0) - len(numbers)
    report.records = len(records)
    ordered = [records[number] for number in sorted(records)]
    wanted = {record.run_id for record in ordered}
    target.add([], [run for run in runs.values() if run.id in wanted])
    for start in range(0, len(ordered), _BATCH):
        target.add([row_of(record) for record in ordered[start : start + _BATCH]])
    return report


def _valid(rows: dict[int, dict[str, Any]], report: Rescued) -> dict[int, Record]:
    found = {}
    for number, row in rows.items():
        try:
            found[number] = record_of(row)
        except UnreadableRowError as error:
            report.unreadable[number] = str(error)
    return found


def _sort_in(
    number: int,
    columns: tuple[Any, ...],
    by_page: dict[int, Record],
    runs: dict[str, Run],
    known: dict[int, Record],
    report: Rescued,
) -> None:
    """Take a row of a leaf page for a record or a run, if it is one and is not known yet."""
    if len(columns) == len(_RUN_COLUMNS):
        row = dict(zip(_RUN_COLUMNS, columns, strict=True))
        if isinstance(row["id"], str) and isinstance(row["details"], str):
            runs.setdefault(row["id"], run_of(row))
        return
    if len(columns) not in {_VERSION_1_COLUMNS, len(_RECORD_COLUMNS)}:
        return
    if number in known or number in by_page:
        return
    row = dict(zip(_RECORD_COLUMNS, columns, strict=False))
    row["id"] = number
    if len(columns) == _VERSION_1_COLUMNS:
        row["run_id"] = LEGACY_RUN
    try:
        by_page[number] = record_of(row)
    except UnreadableRowError as error:
        report.unreadable.setdefault(number, str(error))


def _read_by_sql(copy: Path, rows: dict[int, dict[str, Any]], runs: dict[str, Run]) -> str | None:
    """Read what SQLite can reach, from both ends; its first complaint, if it has any."""
    complaint: str | None = None
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        for query in (
            "SELECT * FROM records ORDER BY id",
            "SELECT * FROM records ORDER BY id DESC",
        ):
            try:
                for row in connection.execute(query):
                    if isinstance(row["id"], int):
                        rows[row["id"]] = {"run_id": LEGACY_RUN, **dict(row)}
            except (sqlite3.Error, UnicodeDecodeError, IndexError, OverflowError) as error:
                complaint = complaint or str(error)
            if complaint is None:
                break
        # An intact tree may still have lost pages elsewhere.
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError, IndexError):
            for row in connection.execute("SELECT * FROM runs"):
                runs[str(row["id"])] = run_of(dict(row))
        try:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except (sqlite3.Error, UnicodeDecodeError) as error:
            found = str(error)
    return complaint or (None if found == "ok" else str(found))


@contextlib.contextmanager
def _copied(source: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="schedenv-rescue-") as folder:
        copy = Path(folder) / "copy.sqlite"
        try:
            shutil.copyfile(source, copy)
            if _log_of(source).is_file():
                shutil.copyfile(_log_of(source), _log_of(copy))
        except OSError as error:
            raise StoreError(
                f"{source} cannot be copied to a temporary directory ({error}); a rescue needs as "
                "much space there (TMPDIR) as the store has"
            ) from error
        yield copy


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
