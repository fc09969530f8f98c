"""One stored result, the run it belongs to, and how both become rows and are read back."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from schedenv.errors import SchedenvError, StoreError
from schedenv.measure.result import Result
from schedenv.space import SPACE_VERSION

MAX_ROW_BYTES = 1 << 20
"""Text of a row; a longer one is not read. Results have some kilobytes."""

MAX_VALUES = 10_000
"""Values of a point; the widest sketches have some fifty."""

_KEPT_REASON = 4_000
_TEXT_COLUMNS = (
    "task_hash", "task_name", "fingerprint", "point", "canonical", "status", "result",
    "conditions", "created_at", "run_id", "digest",
)  # fmt: skip


class UnreadableRowError(SchedenvError, ValueError):
    """A row that holds no record; the message says why. Other rows are not affected."""


class Run(NamedTuple):
    """One tuning run, as a lab wants to find it again.

    Attributes:
        id: Unique; kept when the run is resumed.
        task_hash: Content hash of the task.
        task_name: Its name, for people.
        agent: Who proposed; None if unknown.
        seed: Of everything random; None if unknown.
        host: The machine's name; None if unknown.
        details: Arguments, hardware, versions; JSON-able.
        started_at: When, as ISO 8601 in UTC.
    """

    id: str
    task_hash: str
    task_name: str
    agent: str | None
    seed: int | None
    host: str | None
    details: Mapping[str, Any]
    started_at: str


class Record(NamedTuple):
    """One stored result.

    Attributes:
        task_hash: Content hash of the task.
        task_name: Its name, for people.
        fingerprint: Of the hardware.
        canonical: Canonical form of the point.
        result: As it was measured.
        elapsed_s: Budget seconds that the run had spent when the result was known.
        id: Number in its store; 0 for a record that is not of a store.
        space_version: Of the space that the point is of.
        conditions: Of the measurement: threads, load, versions.
        created_at: When it was stored, as ISO 8601 in UTC.
        run_id: The run that measured it; None if it was imported.
    """

    task_hash: str
    task_name: str
    fingerprint: str
    canonical: str
    result: Result
    elapsed_s: float
    id: int = 0
    space_version: int = SPACE_VERSION
    conditions: Mapping[str, Any] = {}
    created_at: str = ""
    run_id: str | None = None


class _Row(msgspec.Struct, frozen=True):
    """A row as it must be; SQLite itself would let any type into any column."""

    id: int
    task_hash: str
    task_name: str
    fingerprint: str
    space_version: int
    canonical: str
    result: str
    conditions: str
    elapsed_s: float
    created_at: str
    run_id: str | None = None
    digest: str | None = None


def now() -> str:
    """The time as it is stored: ISO 8601 in UTC, whole seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def digest(
    task_hash: str, fingerprint: str, space_version: int, canonical: str, result: Result
) -> str:
    """What tells two measurements apart: 32 hexadecimal digits.

    Equal for two records of the same task, hardware, space version, canonical form, status and
    raw samples: copies of one measurement.
    """
    identity = [task_hash, fingerprint, space_version, canonical, result.status.value]
    text = json.dumps([*identity, [float(sample_s) for sample_s in result.samples_s]])
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def row_of(record: Record) -> dict[str, Any]:
    """The row that stores a record, its `id` left to the database.

    A reason that would make the row too long to be read back is cut.

    Raises:
        StoreError: The row is too long all the same, or a sample is not a finite number.
    """
    result = record.result
    if not all(map(math.isfinite, result.samples_s)):
        raise StoreError(
            f"a result for {record.task_name[:80]!r} has samples that are no finite numbers "
            f"({result.samples_s[:8]}); that is a fault of whoever measured it"
        )
    row = _row_of(record, result)
    if _text_bytes(row) > MAX_ROW_BYTES and result.reason is not None:
        reason = result.reason[:_KEPT_REASON] + " ... (cut)"
        row = _row_of(record, msgspec.structs.replace(result, reason=reason))
    if _text_bytes(row) > MAX_ROW_BYTES or len(result.point.values) > MAX_VALUES:
        raise StoreError(
            f"a result of {_text_bytes(row)} bytes for {record.task_name[:80]!r} is more than a "
            f"store takes ({MAX_ROW_BYTES} bytes, {MAX_VALUES} values a point)"
        )
    return row


def record_of(row: Mapping[str, Any]) -> Record:
    """Read a row back.

    Raises:
        UnreadableRowError: It is not what `row_of` writes, or was changed since.
    """
    if _text_bytes(row) > MAX_ROW_BYTES:
        raise UnreadableRowError(too_long(_text_bytes(row)))
    try:
        # SQLAlchemy's own keys are a kind of string that msgspec does not take.
        checked = msgspec.convert({str(key): value for key, value in row.items()}, _Row)
        result = msgspec.json.decode(checked.result, type=Result)
        conditions = msgspec.json.decode(checked.conditions, type=dict[str, Any])
    except RecursionError:
        raise UnreadableRowError("its JSON is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise UnreadableRowError(str(error)) from None
    if len(result.point.values) > MAX_VALUES:
        raise UnreadableRowError(
            f"its point has {len(result.point.values)} values; at most {MAX_VALUES} are read"
        )
    key = (checked.task_hash, checked.fingerprint, checked.space_version, checked.canonical)
    if checked.digest and checked.digest != digest(*key, result):
        raise UnreadableRowError("its key or its samples were changed: they do not fit its digest")
    return Record(
        checked.task_hash,
        checked.task_name,
        checked.fingerprint,
        checked.canonical,
        result,
        checked.elapsed_s,
        checked.id,
        checked.space_version,
        conditions,
        checked.created_at,
        checked.run_id,
    )


def run_row(run: Run) -> dict[str, Any]:
    """The row that stores a run."""
    return {**run._asdict(), "details": json.dumps(run.details, sort_keys=True)}


def run_of(row: Mapping[str, Any]) -> Run:
    """Read a run's row back; details that cannot be read are left out."""
    try:
        details = msgspec.json.decode(str(row["details"])[:MAX_ROW_BYTES], type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        details = {}
    return Run(**{**{str(key): value for key, value in row.items()}, "details": details})


def too_long(count_bytes: int) -> str:
    """Why a row of so many bytes is not read."""
    return f"it has {count_bytes} bytes; at most {MAX_ROW_BYTES} are read"


def text_columns() -> tuple[str, ...]:
    """The columns whose text counts towards `MAX_ROW_BYTES`."""
    return _TEXT_COLUMNS


def _row_of(record: Record, result: Result) -> dict[str, Any]:
    return {
        "task_hash": record.task_hash,
        "task_name": _storable(record.task_name),
        "fingerprint": record.fingerprint,
        "space_version": record.space_version,
        "point": str(result.point),
        "canonical": record.canonical,
        "status": result.status.value,
        "estimate_s": result.estimate_s,
        "result": _encoded(result),
        "conditions": json.dumps(dict(record.conditions), sort_keys=True),
        "elapsed_s": record.elapsed_s,
        "created_at": record.created_at or now(),
        "run_id": record.run_id,
        "digest": digest(
            record.task_hash, record.fingerprint, record.space_version, record.canonical, result
        ),
    }


def _encoded(result: Result) -> str:
    try:
        return msgspec.json.encode(result).decode()
    except UnicodeEncodeError:  # a reason with bytes that are no text
        reason = _storable(result.reason or "")
        return msgspec.json.encode(msgspec.structs.replace(result, reason=reason)).decode()


def _storable(text: str) -> str:
    """Text that every database takes: no lone surrogates, no zero characters."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def _text_bytes(row: Mapping[str, Any]) -> int:
    total = 0
    for column in _TEXT_COLUMNS:
        value = row.get(column)
        if isinstance(value, str | bytes):
            total += len(value)
    return total
