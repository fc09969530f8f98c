"""Where a store lives: a SQLite file or a PostgreSQL database, its faults in schedenv's terms."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa

from schedenv.errors import (
    CorruptStoreError,
    InputError,
    MissingExtraError,
    StoreError,
    StoreLockedError,
)
from schedenv.records.printable import printable

T = TypeVar("T")

LOCK_WAIT_S = 30.0

_RETRY_PAUSE_S = 0.05
_SMALLEST_BYTES = 512
_CONNECT_LIMIT_S = 10
# Any number will do, as long as every schedenv uses the same one.
_POSTGRES_SETUP_LOCK = 5_317_229_441
_SQLITE_TEXT_LIMIT_BYTES = 1 << 28
_DAMAGE = (
    "malformed",
    "not a database",
    "unsupported file format",
    "no such table",
    "no such column",
    "short read",
)
_SPACE = ("disk is full", "disk I/O error")


def is_url(place: Path | str) -> bool:
    """Whether a store's place is a URL, not a path."""
    return isinstance(place, str) and "://" in place


def without_password(place: Path | str) -> str:
    """A store's place for messages and files: a password in it is left out."""
    if not is_url(place):
        return str(place)
    url = _parse_url(str(place))
    query = {key: value for key, value in url.query.items() if key != "password"}
    # `URL.set` takes None for "as it was".
    return url._replace(password=None).set(query=query).render_as_string(hide_password=False)


class Database:
    """A database whose every fault is a `StoreError` that says what to do.

    Args:
        place: A path, for SQLite, or a URL such as `postgresql+psycopg://user@host/name`.
        lock_wait_s: How long another process may keep the database locked.

    Attributes:
        name: The place, for people.
        path: The SQLite file; None for PostgreSQL.
        writable: Whether a SQLite file can be written; what cannot is read without its log.

    Raises:
        CorruptStoreError: Next to nothing of the file is left, though there was something.
        StoreError: It cannot be written, and cannot be read without writing.
        InputError: The URL is malformed, or of a database that is not supported.
        MissingExtraError: The PostgreSQL driver is not installed.
    """

    def __init__(self, place: Path | str, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self.lock_wait_s = lock_wait_s
        self.name = without_password(place)
        self.path = None if is_url(place) else Path(place)
        if self.path is not None and (loss := _taken_for_new(self.path)):
            raise self.damaged(loss)
        self.writable = self.path is None or _can_write(self.path)
        self._engine = self._sqlite(self.path) if self.path else self._postgres(str(place))

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection in a transaction that sees one state of the database.

        Raises:
            StoreError: The database cannot be used; the kinds are those of `write`.
        """
        with self._explained(), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A connection in a transaction that writes: all of it is kept, or nothing.

        Raises:
            StoreLockedError: Another process has held the lock for too long.
            CorruptStoreError: The file is damaged.
            StoreError: It cannot be written: disk full, read-only, server gone.
        """
        with self._explained(), self._engine.connect() as connection:
            writing = connection.execution_options(writes=True)
            with writing.begin():
                yield writing

    @contextlib.contextmanager
    def alone(self) -> Iterator[sa.Connection]:
        """As `write`, with every other process that wants to be alone kept waiting."""
        with self.write() as connection:
            if self.path is None:
                connection.execute(
                    sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_SETUP_LOCK}
                )
            yield connection

    def patiently(self, action: Callable[[], T]) -> T:
        """Repeat what finds the database locked without being made to wait, for as long.

        SQLite does not wait for the lock that switching a new file to write-ahead logging takes.
        """
        end_s = time.monotonic() + self.lock_wait_s
        while True:
            try:
                return action()
            except StoreLockedError:
                if time.monotonic() >= end_s:
                    raise
                time.sleep(_RETRY_PAUSE_S)

    def compact(self) -> None:
        """Give the space of deleted records back to the file system (SQLite; else nothing)."""
        if self.path is None:
            return
        with self._explained(), self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("VACUUM")
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close all connections; a second call does nothing."""
        self._engine.dispose()

    def damaged(self, detail: str) -> CorruptStoreError:
        """The error for a damaged SQLite file."""
        line = printable(detail.splitlines()[0] if detail else "no detail", limit=200)
        return CorruptStoreError(
            f"{self.name} is damaged ({line}); move it away, or rescue what can be read with: "
            f"schedenv records rescue {self.name} --to NEW"
        )

    # -- engines --------------------------------------------------------------------------------

    def _sqlite(self, path: Path) -> sa.Engine:
        def connect() -> sqlite3.Connection:
            # Without its log, a file in a folder that nobody can write is still readable.
            how = "mode=rwc" if self.writable else "immutable=1"
            uri = f"file:{_quoted(path)}?{how}"
            connection = sqlite3.connect(
                uri, uri=True, timeout=self.lock_wait_s, check_same_thread=False
            )
            # Transactions begin where `_begin` says so, not where the driver guesses.
            connection.isolation_level = None
            connection.text_factory = _lenient_text
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _SQLITE_TEXT_LIMIT_BYTES)
            for pragma in self._pragmas():
                connection.execute(f"PRAGMA {pragma}").close()
            return connection

        engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.QueuePool)
        sa.event.listen(engine, "begin", _begin)
        return engine

    def _pragmas(self) -> list[str]:
        # A file may come from anybody: nothing in its schema may run code.
        pragmas = ["trusted_schema=OFF", "cell_size_check=ON"]
        if self.writable:
            # The log is synced at every commit: a power cut loses nothing either.
            pragmas += ["journal_mode=WAL", "synchronous=FULL"]
        return pragmas

    def _postgres(self, url: str) -> sa.Engine:
        wait_ms = round(self.lock_wait_s * 1000)
        try:
            return sa.create_engine(
                _parse_url(url),
                pool_pre_ping=True,
                connect_args={
                    "connect_timeout": _CONNECT_LIMIT_S,
                    "options": f"-c lock_timeout={wait_ms}",
                },
            )
        except ModuleNotFoundError:
            raise MissingExtraError("psycopg", "postgres", "a record store on PostgreSQL") from None

    # -- faults ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise self._explain(error) from error
        except UnicodeDecodeError as error:
            # The driver could not read the file's bytes, not even for its own message.
            raise self.damaged(str(error)) from error

    def _explain(self, error: sa.exc.DBAPIError) -> StoreError:
        said = str(error.orig).strip()
        if self.path is None:
            return self._explain_postgres(error, said)
        if "locked" in said or "busy" in said:
            return StoreLockedError(
                f"{self.name} has been locked by another process for {self.lock_wait_s:g} s; "
                f"wait until that process has ended, or find it with: fuser {self.name}"
            )
        if any(word in said for word in _DAMAGE) or not isinstance(error, sa.exc.OperationalError):
            return self.damaged(said)
        if any(word in said for word in _SPACE):
            free_bytes = _free_bytes(self.path)
            return StoreError(
                f"cannot write the record store {self.name}: {said}, {free_bytes} bytes are free "
                "on its disk; free some space and continue: everything stored before is kept"
            )
        if "readonly" in said:
            return StoreError(
                f"cannot write the record store {self.name}: {said}; make the file and its "
                "directory writable, or copy it to where you may write"
            )
        return StoreError(
            f"cannot use the record store {self.name}: {said}; check that its directory exists "
            "and is writable, and that it is a file"
        )

    def _explain_postgres(self, error: sa.exc.DBAPIError, said: str) -> StoreError:
        line = printable(said.splitlines()[0] if said else type(error.orig).__name__)
        if getattr(error.orig, "sqlstate", None) == "55P03":
            return StoreLockedError(
                f"{self.name} has been locked by another session for {self.lock_wait_s:g} s; "
                "wait until it has ended, or find it in the server's view pg_stat_activity"
            )
        return StoreError(
            f"cannot use the record store {self.name}: {line}; check that the server runs, that "
            "the database exists, and that PGPASSWORD or ~/.pgpass has the password"
        )


def _begin(connection: sa.Connection) -> None:
    """Begin a transaction; one that writes takes the lock at once, and waits for it."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _lenient_text(raw: bytes) -> str:
    """Text of a file that may be damaged: the bytes stay recognisable, one row's fault its own."""
    return raw.decode("utf-8", "surrogateescape")


def _parse_url(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in {"postgresql", "postgresql+psycopg"}:
        scheme = printable(text.partition("://")[0], limit=40)
        raise InputError(
            f"expected a store as a path or as postgresql+psycopg://USER@HOST/NAME, got one that "
            f"begins with '{scheme}'"
        )
    return url.set(drivername="postgresql+psycopg")


def _can_write(path: Path) -> bool:
    """Whether SQLite can write the file and its log, as far as that can be seen beforehand.

    Raises:
        StoreError: It cannot, and the log holds results that could not be read without it.
    """
    folder = path.parent
    if not folder.is_dir() or not path.exists():
        return True
    if os.access(folder, os.W_OK) and os.access(path, os.W_OK):
        return True
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"{path} cannot be written, and results are left in its log {log.name}; copy both to "
            "a directory that you may write, and open the copy"
        )
    return False


def _taken_for_new(path: Path) -> str | None:
    """Why a file that SQLite would take for a new one is not; None if it is, or is not so taken.

    SQLite would overwrite what is left of it, and throw the log away.
    """
    size = path.stat().st_size if path.is_file() else _SMALLEST_BYTES
    if 0 < size < _SMALLEST_BYTES:
        return f"it is cut to {size} bytes"
    log = path.with_name(path.name + "-wal")
    if size == 0 and log.is_file() and log.stat().st_size > 0:
        return "the file is empty, its log is not"
    return None


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return 0


def _quoted(path: Path) -> str:
    return quote(str(path.absolute()))
