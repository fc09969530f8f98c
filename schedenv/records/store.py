"""The record store: every result ever measured, safe under kill -9."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import msgspec
import sqlalchemy as sa

from schedenv.errors import CorruptStoreError, ForeignRecordsError, StoreError
from schedenv.measure.result import Result
from schedenv.records import schema
from schedenv.space import SPACE_VERSION

P = ParamSpec("P")
T = TypeVar("T")

_LOCK_WAIT_S = 30
_CREATE_ATTEMPTS = 8
_CREATE_PAUSE_S = 0.05


class Record(NamedTuple):
    """One stored result.

    Attributes:
        task_hash: Content hash of the task.
        task_name: Its name, for people.
        fingerprint: Of the hardware.
        canonical: Canonical form of the point.
        result: As it was measured.
        elapsed_s: Budget seconds that the run had spent when the result was known.
    """

    task_hash: str
    task_name: str
    fingerprint: str
    canonical: str
    result: Result
    elapsed_s: float


class RecordStore:
    """Records in one SQLite file (write-ahead log: readers never wait, a kill loses nothing).

    Args:
        path: The file; created if it does not exist.
        fingerprint: Hardware of this machine. A store with records of other hardware, or of
            another space version, is refused, because their times and points mean nothing here.
        allow_foreign: Do not refuse; foreign records are then stored beside, never returned.

    Raises:
        CorruptStoreError: The file is damaged or is not a record store.
        ForeignRecordsError: It holds records of other hardware, or its versions are not ours.
        StoreError: It cannot be opened or written.
    """

    def __init__(self, path: Path, fingerprint: str, *, allow_foreign: bool = False) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _LOCK_WAIT_S})
        sa.event.listen(self._engine, "connect", _set_pragmas)
        self._guarded(self._open_patiently)()
        if not allow_foreign:
            self._refuse_foreign()

    def append(
        self,
        task_hash: str,
        task_name: str,
        canonical: str,
        result: Result,
        elapsed_s: float,
        conditions: Mapping[str, Any],
    ) -> None:
        """Store one result; when this returns, it survives the death of the process.

        Raises:
            StoreError: It cannot be written (disk full, read-only, locked); nothing half-written
                remains.
        """
        row = {
            "task_hash": task_hash,
            "task_name": task_name,
            "fingerprint": self.fingerprint,
            "space_version": SPACE_VERSION,
            "point": str(result.point),
            "canonical": canonical,
            "status": result.status.value,
            "estimate_s": result.estimate_s,
            "result": msgspec.json.encode(result).decode(),
            "conditions": json.dumps(conditions, sort_keys=True),
            "elapsed_s": elapsed_s,
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }

        def write() -> None:
            with self._engine.begin() as connection:
                connection.execute(schema.records.insert().values(row))

        self._guarded(write)()

    def records(self, task_hash: str | None = None) -> list[Record]:
        """Records of this machine, oldest first; of one task, or of all (None)."""
        table = schema.records
        query = (
            sa.select(table)
            .where(table.c.fingerprint == self.fingerprint, table.c.space_version == SPACE_VERSION)
            .order_by(table.c.id)
        )
        if task_hash is not None:
            query = query.where(table.c.task_hash == task_hash)

        def read() -> list[Record]:
            with self._engine.connect() as connection:
                return [
                    Record(
                        row.task_hash,
                        row.task_name,
                        row.fingerprint,
                        row.canonical,
                        msgspec.json.decode(row.result, type=Result),
                        row.elapsed_s,
                    )
                    for row in connection.execute(query)
                ]

        return self._guarded(read)()

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_patiently(self) -> None:
        """Open, and start over where another process was creating the store meanwhile."""
        for attempt in range(_CREATE_ATTEMPTS):
            try:
                self._open()
                return
            except (sa.exc.OperationalError, sa.exc.IntegrityError):
                if attempt + 1 == _CREATE_ATTEMPTS or not self.path.exists():
                    raise
                time.sleep(_CREATE_PAUSE_S * (attempt + 1))

    def _open(self) -> None:
        with self._engine.begin() as connection:
            damage = connection.execute(sa.text("PRAGMA quick_check(1)")).scalar()
            if damage != "ok":
                raise CorruptStoreError(self._corrupt(str(damage)))
            tables = set(sa.inspect(connection).get_table_names())
            if tables and "about" not in tables:
                raise CorruptStoreError(
                    f"{self.path} is a SQLite file but not a record store "
                    f"(it has the tables {', '.join(sorted(tables))}); choose another --out"
                )
            schema.metadata.create_all(connection)
            rows = connection.execute(sa.select(schema.about))
            about = {str(row.key): str(row.value) for row in rows}
            if not about:
                values = [{"key": "schema_version", "value": str(schema.SCHEMA_VERSION)}]
                connection.execute(schema.about.insert(), values)
            elif about.get("schema_version") != str(schema.SCHEMA_VERSION):
                raise ForeignRecordsError(
                    f"{self.path} has schema version {about.get('schema_version')}, this schedenv "
                    f"reads version {schema.SCHEMA_VERSION}; upgrade schedenv or choose another "
                    "--out"
                )

    def _refuse_foreign(self) -> None:
        table = schema.records

        def read() -> list[Any]:
            with self._engine.connect() as connection:
                columns = (table.c.fingerprint, table.c.space_version)
                return list(connection.execute(sa.select(*columns).distinct()))

        for fingerprint, version in self._guarded(read)():
            if fingerprint != self.fingerprint:
                raise ForeignRecordsError(
                    f"{self.path} holds records of the hardware {fingerprint}; this machine is "
                    f"{self.fingerprint}. Times do not carry over: choose another --out, or pass "
                    "--allow-foreign to keep both in one store"
                )
            if version != SPACE_VERSION:
                raise ForeignRecordsError(
                    f"{self.path} holds points of space version {version}; this schedenv uses "
                    f"version {SPACE_VERSION}. Choose another --out, or pass --allow-foreign"
                )

    def _corrupt(self, detail: str) -> str:
        return (
            f"{self.path} is damaged ({detail.splitlines()[0]}); move it away, or rescue what can "
            f"be read with: sqlite3 {self.path} .recover"
        )

    def _guarded(self, action: Callable[P, T]) -> Callable[P, T]:
        """Turn the driver's exceptions into the store's own."""

        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return action(*args, **kwargs)
            except sa.exc.OperationalError as error:
                raise StoreError(
                    f"cannot use the record store {self.path}: {error.orig}; check that the disk "
                    "is not full, that the file is writable, and that no other program locks it"
                ) from error
            except sa.exc.DatabaseError as error:
                raise CorruptStoreError(self._corrupt(str(error.orig))) from error
            except msgspec.DecodeError as error:
                raise CorruptStoreError(self._corrupt(str(error))) from error

        return guarded


def _set_pragmas(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # The log is synced at every commit: a power cut loses nothing either.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
