"""Everything in a store, whatever the hardware: opening, upgrading, reading, adding, deleting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import sqlalchemy as sa

from schedenv.errors import CorruptStoreError, ForeignRecordsError, StoreError
from schedenv.records import migrations, schema
from schedenv.records.database import LOCK_WAIT_S, Database
from schedenv.records.printable import printable
from schedenv.records.record import (
    MAX_ROW_BYTES,
    Record,
    Run,
    UnreadableRowError,
    record_of,
    run_of,
    run_row,
    text_columns,
    too_long,
)

_BATCH = 500


@dataclass(frozen=True)
class Selection:
    """Which records are wanted; every field that is not None narrows it down.

    Attributes:
        task: Content hash or name of the task.
        fingerprint: Of the hardware.
        space_version: Of the space.
        run_id: The run.
        agent: Who proposed them.
        statuses: Any of these.
        ids: Any of these numbers.
        before: Stored before this time, ISO 8601 in UTC.
    """

    task: str | None = None
    fingerprint: str | None = None
    space_version: int | None = None
    run_id: str | None = None
    agent: str | None = None
    statuses: Sequence[str] | None = None
    ids: Sequence[int] | None = None
    before: str | None = None

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        """The conditions of a query."""
        table = schema.records
        found: list[sa.ColumnElement[bool]] = []
        if self.task is not None:
            found.append(sa.or_(table.c.task_hash == self.task, table.c.task_name == self.task))
        for column, value in (
            (table.c.fingerprint, self.fingerprint),
            (table.c.space_version, self.space_version),
            (table.c.run_id, self.run_id),
        ):
            if value is not None:
                found.append(column == value)
        if self.agent is not None:
            of_agent = sa.select(schema.runs.c.id).where(schema.runs.c.agent == self.agent)
            found.append(table.c.run_id.in_(of_agent))
        if self.statuses is not None:
            found.append(table.c.status.in_(self.statuses))
        if self.ids is not None:
            found.append(table.c.id.in_(self.ids))
        if self.before is not None:
            found.append(table.c.created_at < self.before)
        return found


class Unreadable(NamedTuple):
    """A row that holds no record.

    Attributes:
        id: Its number in the store.
        reason: Why it cannot be read.
    """

    id: int
    reason: str


@dataclass
class Reading:
    """What was read: the records, and the rows that hold none.

    Attributes:
        records: Oldest first.
        unreadable: Rows left out.
    """

    records: list[Record] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


class Archive:
    """All records of one store.

    Args:
        place: A path, for a SQLite file in write-ahead mode (readers never wait, a kill loses
            nothing), created if it does not exist; or the URL of a PostgreSQL database.
        lock_wait_s: How long another process may keep the store locked.

    Attributes:
        backup: The copy that was made before an old store was upgraded; None if none was.

    Raises:
        CorruptStoreError: The file is damaged or is not a record store.
        ForeignRecordsError: Its schema is newer than this schedenv.
        StoreLockedError: Another process keeps it locked.
        StoreError: It cannot be opened.
        InputError: The URL cannot be used.
    """

    def __init__(self, place: Path | str, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self._database = Database(place, lock_wait_s)
        self.backup: Path | None = None
        try:
            self._database.patiently(self._open)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The store's place, for people, without a password."""
        return self._database.name

    def read(self, selection: Selection = Selection()) -> Reading:
        """The selected records, oldest first; rows that cannot be read are named, not hidden.

        Raises:
            StoreError: The store cannot be read.
        """
        reading = Reading()
        for row in self._rows(selection, reading.unreadable):
            try:
                reading.records.append(record_of(row))
            except UnreadableRowError as error:
                reading.unreadable.append(Unreadable(_number(row["id"]), str(error)))
        return reading

    def rows(self, selection: Selection = Selection()) -> Iterator[dict[str, Any]]:
        """The selected rows as they are stored, the overlong ones left out, oldest first.

        Raises:
            StoreError: The store cannot be read.
        """
        yield from self._rows(selection, [])

    def origins(self) -> list[tuple[str, int]]:
        """Every (fingerprint, space version) of which there are records.

        Raises:
            CorruptStoreError: A row names neither; both columns are declared to be never empty.
            StoreError: The store cannot be read.
        """
        table = schema.records
        with self._database.read() as connection:
            query = sa.select(table.c.fingerprint, table.c.space_version).distinct()
            found = [(row.fingerprint, row.space_version) for row in connection.execute(query)]
        for fingerprint, version in found:
            if not isinstance(fingerprint, str) or not isinstance(version, int):
                raise self._database.damaged("a record without its hardware or space version")
        return found

    def digests(self) -> set[str]:
        """What tells the measurements apart, of all records.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._database.read() as connection:
            return set(connection.execute(sa.select(schema.records.c.digest)).scalars())

    def runs(self) -> dict[str, Run]:
        """The runs by id.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._database.read() as connection:
            rows: Iterable[Any] = connection.execute(sa.select(schema.runs)).mappings()
            return {str(row["id"]): run_of(row) for row in rows}

    def add(self, rows: Sequence[Mapping[str, Any]], runs: Iterable[Run] = ()) -> None:
        """Add rows (see `schedenv.records.record.row_of`) and the runs that are not there yet.

        When this returns, they survive the death of the process; if it raises, none was added.

        Raises:
            StoreError: They cannot be written (disk full, read-only, locked).
        """
        with self._database.write() as connection:
            known = set(connection.execute(sa.select(schema.runs.c.id)).scalars()) if runs else ()
            for run in runs:
                if run.id not in known:
                    connection.execute(schema.runs.insert(), run_row(run))
            if rows:
                connection.execute(schema.records.insert(), list(rows))

    def delete(self, ids: Sequence[int]) -> None:
        """Delete records by number, all of them or none, and give their space back.

        Raises:
            StoreError: The store cannot be written.
        """
        table = schema.records
        with self._database.write() as connection:
            for start in range(0, len(ids), _BATCH):
                batch = ids[start : start + _BATCH]
                connection.execute(table.delete().where(table.c.id.in_(batch)))
        self._database.compact()

    def damage(self) -> list[str]:
        """What a thorough check of a SQLite file finds wrong with it; empty for PostgreSQL.

        Raises:
            StoreError: The store cannot be read.
        """
        if self._database.path is None:
            return []
        with self._database.read() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars()
            return [printable(str(line), limit=200) for line in found if line != "ok"]

    def unreadable(self, row_id: int, reason: str) -> CorruptStoreError:
        """The error for a row that cannot be read, where that matters."""
        return CorruptStoreError(
            f"record {row_id} of {self.name} cannot be read ({printable(reason, limit=200)}); "
            f"list all such records with: schedenv records verify {self.name}"
        )

    def close(self) -> None:
        """Release the store; a second call does nothing."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, selection: Selection, overlong: list[Unreadable]) -> Iterator[dict[str, Any]]:
        table, length = schema.records, _text_length()
        wanted = selection.clauses()
        too_big = sa.select(table.c.id, length).where(length > MAX_ROW_BYTES, *wanted)
        # A huge text never gets into this process: SQL measures it.
        usual = sa.select(table).where(length <= MAX_ROW_BYTES, *wanted).order_by(table.c.id)
        with self._database.read() as connection:
            for number, count in connection.execute(too_big.order_by(table.c.id)):
                overlong.append(Unreadable(_number(number), too_long(count)))
            for row in connection.execute(usual).mappings():
                yield {str(key): value for key, value in row.items()}

    # -- opening --------------------------------------------------------------------------------

    def _open(self) -> None:
        version = self._version()
        if version is not None and version == schema.SCHEMA_VERSION:
            return
        if not self._database.writable:
            raise StoreError(
                f"{self.name} has schema version {version} and cannot be written, so it cannot be "
                f"upgraded to version {schema.SCHEMA_VERSION}; copy it to where you may write"
            )
        if version is None:
            with self._database.alone() as connection:
                if self._read_version(connection) is None:
                    schema.metadata.create_all(connection)
                    now = {"key": "schema_version", "value": str(schema.SCHEMA_VERSION)}
                    connection.execute(schema.about.insert(), [now])
            return
        with self._database.alone() as connection:
            # Another process may have upgraded it while this one waited.
            version = self._read_version(connection)
            if version is None or version >= schema.SCHEMA_VERSION:
                return
            if self._database.path is not None:
                self.backup = migrations.back_up(self._database.path, version)
            migrations.migrate(connection, version)
            connection.execute(
                schema.about.update()
                .where(schema.about.c.key == "schema_version")
                .values(value=str(schema.SCHEMA_VERSION))
            )

    def _version(self) -> int | None:
        """The store's schema version; None if it is still empty."""
        with self._database.read() as connection:
            if self._database.path is not None:
                damage = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
                if damage != "ok":
                    raise self._database.damaged(str(damage))
                self._refuse_code(connection)
            return self._read_version(connection)

    def _read_version(self, connection: sa.Connection) -> int | None:
        tables = set(sa.inspect(connection).get_table_names())
        if not tables & {"about", "records"}:
            if tables and self._database.path is not None:
                listed = printable(", ".join(sorted(tables)), limit=200)
                raise CorruptStoreError(
                    f"{self.name} is a SQLite file but not a record store "
                    f"(it has the tables {listed}); choose another --out"
                )
            return None
        about = {
            str(row.key): str(row.value) for row in connection.execute(sa.select(schema.about))
        }
        text = about.get("schema_version", "")
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) >= 1):
            raise CorruptStoreError(
                f"{self.name} does not say its schema version (expected a number, got "
                f"{printable(text, limit=40)!r}); rescue what can be read with: "
                f"schedenv records rescue {self.name} --to NEW"
            )
        if int(text) > schema.SCHEMA_VERSION:
            raise ForeignRecordsError(
                f"{self.name} has schema version {text}, this schedenv reads up to version "
                f"{schema.SCHEMA_VERSION}; upgrade it with: pip install --upgrade schedenv"
            )
        return int(text)

    def _refuse_code(self, connection: sa.Connection) -> None:
        """A store of somebody else's making must not run anything when it is read or written."""
        query = "SELECT count(*) FROM sqlite_master WHERE type IN ('view', 'trigger')"
        count = connection.exec_driver_sql(query).scalar()
        if count:
            raise CorruptStoreError(
                f"{self.name} has {count} views or triggers, and a record store has none; it was "
                f"not written by schedenv. Copy its records with: schedenv records rescue "
                f"{self.name} --to NEW"
            )


def _text_length() -> sa.ColumnElement[int]:
    columns = [schema.records.c[name] for name in text_columns()]
    total: sa.ColumnElement[int] = sa.literal(0)
    for column in columns:
        total = total + sa.func.coalesce(sa.func.length(column), 0)
    return total


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
