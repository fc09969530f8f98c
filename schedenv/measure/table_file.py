"""Recorded tables as Parquet files: one row a point, everything else in the file's metadata."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from schedenv.errors import (
    CorruptTableError,
    ForeignTableError,
    InputError,
    MissingExtraError,
    OutputDirError,
    TableError,
)
from schedenv.measure.result import Phases, Status
from schedenv.measure.table import FORMAT_VERSION, Row, Table, TableInfo
from schedenv.space import Point

INFO_KEY = b"schedenv.table"
DIGEST_KEY = b"schedenv.digest"

_MOST_BYTES = 256 << 20
_MOST_ROWS = 1_000_000
_COMPRESSION_LEVEL = 19
_PHASES = tuple(field.name for field in msgspec.structs.fields(Phases))


class _Version(msgspec.Struct):
    """The one field that all versions of the metadata have."""

    format_version: int


def shipped_tables() -> dict[str, Path]:
    """The tables that come with schedenv, by name."""
    folder = Path(str(importlib.resources.files("schedenv"))) / "tables"
    return {path.stem: path for path in sorted(folder.glob("*.parquet"))}


def write_table(table: Table, path: Path) -> None:
    """Write a table, whole or not at all.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OutputDirError: The file cannot be written.
    """
    pa, pq = require_arrow("writing a recorded table")
    info = msgspec.json.encode(table.info)
    columns = pa.Table.from_pylist([_flat(row) for row in table.rows], schema=_schema(pa))
    partial = path.with_name(path.name + ".partial")
    options: dict[str, Any] = {
        "compression": "zstd",
        "compression_level": _COMPRESSION_LEVEL,
        "write_page_checksum": True,
        # Arrow's own copy of the schema would repeat the metadata.
        "store_schema": False,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(partial, columns.schema, **options) as writer:
            writer.write_table(columns)
            writer.add_key_value_metadata({INFO_KEY: info, DIGEST_KEY: _digest(info, table.rows)})
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise OutputDirError(
            f"{path} cannot be written ({error.strerror or error}); choose another --out"
        ) from None


def read_table(path: Path) -> Table:
    """Read a table and check all of it.

    Args:
        path: A Parquet file that `schedenv record` wrote.

    Raises:
        MissingExtraError: pyarrow is not installed.
        InputError: There is no such file.
        ForeignTableError: It is something else than a recorded table, or of a newer format.
        CorruptTableError: It is damaged, or contradicts itself.
    """
    _, pq = require_arrow("reading a recorded table")
    _check_file(path)
    try:
        # Its errors are of many kinds, for a damaged file can break it anywhere.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            metadata = file.metadata.metadata or {}
            if INFO_KEY not in metadata:
                raise ForeignTableError(
                    f"{path} is a Parquet file but not a recorded table; "
                    "expected one that schedenv record wrote"
                )
            info = _decode_info(path, metadata[INFO_KEY])
            if file.metadata.num_rows > _MOST_ROWS:
                raise ValueError(f"it says that it has {file.metadata.num_rows} rows")
            rows = tuple(_row(flat) for flat in file.read().to_pylist())
        if metadata.get(DIGEST_KEY) != _digest(metadata[INFO_KEY], rows):
            raise ValueError("its content does not match its digest")
        table = Table(info, rows, str(path))
        table.check()
    except TableError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CorruptTableError(
            f"{path} is damaged ({reason}); get it again, or record it again with schedenv record"
        ) from error
    return table


def require_arrow(purpose: str) -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`.

    Args:
        purpose: What they are needed for, for the message.

    Raises:
        MissingExtraError: They are not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtraError("pyarrow", "tables", purpose) from None
    return pa, pq


def _check_file(path: Path) -> None:
    """Refuse what is no Parquet file at all, before a parser sees it."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
        size = path.stat().st_size
    except FileNotFoundError:
        known = ", ".join(shipped_tables()) or "none"
        raise InputError(
            f"there is no recorded table {path}; expected a file that schedenv record wrote "
            f"(shipped tables: {known})"
        ) from None
    except OSError as error:
        raise InputError(f"the recorded table {path} cannot be read ({error.strerror})") from None
    if head != b"PAR1":
        raise ForeignTableError(
            f"{path} is not a Parquet file; expected one that schedenv record wrote"
        )
    if size > _MOST_BYTES:
        raise ForeignTableError(
            f"{path} has {size} bytes; expected a recorded table of at most {_MOST_BYTES}"
        )


def _decode_info(path: Path, text: bytes) -> TableInfo:
    """Read the metadata, but for a newer version, whose meaning is not known."""
    version = msgspec.json.decode(text, type=_Version).format_version
    if version > FORMAT_VERSION:
        raise ForeignTableError(
            f"{path} has table format {version}, this schedenv reads up to {FORMAT_VERSION}; "
            "upgrade schedenv"
        )
    return msgspec.json.decode(text, type=TableInfo)


def _digest(info: bytes, rows: Sequence[Row]) -> bytes:
    """Of everything that a table says, so that no damaged byte goes unnoticed."""
    digest = hashlib.sha256(info)
    digest.update(msgspec.json.encode(rows))
    return digest.hexdigest().encode()


def _schema(pa: Any) -> Any:
    time = pa.float32()
    return pa.schema(
        [
            pa.field("point", pa.string(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("reason", pa.string()),
            pa.field("program", pa.string()),
            pa.field("code", pa.string()),
            pa.field("samples_s", pa.list_(time), nullable=False),
            pa.field("estimate_s", time),
            pa.field("low_s", time),
            pa.field("high_s", time),
            pa.field("looks_s", pa.list_(time), nullable=False),
            pa.field("max_error", time),
            *(pa.field(name, time, nullable=False) for name in _PHASES),
            pa.field("finalist", pa.bool_(), nullable=False),
        ]
    )


def _flat(row: Row) -> dict[str, Any]:
    """A row as the columns' values."""
    flat = msgspec.structs.asdict(row)
    phases = flat.pop("phases")
    return {
        **flat,
        **msgspec.structs.asdict(phases),
        "point": str(row.point),
        "status": row.status.value,
    }


def _row(flat: dict[str, Any]) -> Row:
    """The row that columns' values stand for."""
    phases = Phases(**{name: flat.pop(name) for name in _PHASES})
    return Row(
        **{
            **flat,
            "point": Point.parse(flat["point"]),
            "status": Status(flat["status"]),
            "samples_s": tuple(flat["samples_s"]),
            "looks_s": tuple(flat["looks_s"]),
            "phases": phases,
        }
    )
