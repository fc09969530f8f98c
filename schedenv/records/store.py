"""The record store as a tuning run uses it: this machine's records, and no others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from schedenv.errors import ForeignRecordsError, UnreadableRecordsWarning
from schedenv.measure.result import Result
from schedenv.records.archive import Archive, Selection
from schedenv.records.database import LOCK_WAIT_S
from schedenv.records.printable import printable
from schedenv.records.record import Record, Run, row_of
from schedenv.space import SPACE_VERSION


class RecordStore:
    """Records in a SQLite file (a kill loses nothing) or in a PostgreSQL database.

    Args:
        place: A path (the file is created if it does not exist), or a URL such as
            `postgresql+psycopg://user@host/name`.
        fingerprint: Hardware of this machine. A store with records of other hardware, or of
            another space version, is refused, because their times and points mean nothing here.
        allow_foreign: Do not refuse; foreign records are then stored beside, never returned.
        lock_wait_s: How long another process may keep the store locked.

    Attributes:
        backup: The copy that was made before an old store was upgraded; None if none was.

    Raises:
        CorruptStoreError: The file is damaged or is not a record store.
        ForeignRecordsError: It holds records of other hardware, or its versions are not ours.
        StoreLockedError: Another process keeps it locked.
        StoreError: It cannot be opened or written.
        InputError: The URL cannot be used.
    """

    def __init__(
        self,
        place: Path | str,
        fingerprint: str,
        *,
        allow_foreign: bool = False,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> None:
        self.fingerprint = fingerprint
        self._archive = Archive(place, lock_wait_s=lock_wait_s)
        self.backup = self._archive.backup
        try:
            if not allow_foreign:
                self._refuse_foreign()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The store's place, for people, without a password."""
        return self._archive.name

    def append(
        self,
        task_hash: str,
        task_name: str,
        canonical: str,
        result: Result,
        elapsed_s: float,
        conditions: Mapping[str, Any],
        *,
        run_id: str | None = None,
    ) -> None:
        """Store one result; when this returns, it survives the death of the process.

        Raises:
            StoreError: It cannot be written (disk full, read-only, locked); nothing half-written
                remains.
        """
        record = Record(
            task_hash, task_name, self.fingerprint, canonical, result, elapsed_s,
            conditions=conditions, run_id=run_id,
        )  # fmt: skip
        self._archive.add([row_of(record)])

    def start(self, run: Run) -> None:
        """Note a run, before its first result; one that is there already is left as it is.

        Raises:
            StoreError: It cannot be written.
        """
        self._archive.add([], [run])

    def records(
        self, task_hash: str | None = None, *, run_id: str | None = None, strict: bool = False
    ) -> list[Record]:
        """Records of this machine, oldest first.

        A row that cannot be read hides no other: it is left out, and an
        `UnreadableRecordsWarning` says how many were.

        Args:
            task_hash: Of this task only; None for all.
            run_id: Of this run only; None for all.
            strict: Raise instead of leaving anything out.

        Raises:
            CorruptStoreError: A row cannot be read, and `strict` is true.
            StoreError: The store cannot be read.
        """
        reading = self._archive.read(
            Selection(
                task=task_hash,
                fingerprint=self.fingerprint,
                space_version=SPACE_VERSION,
                run_id=run_id,
            )
        )
        if reading.unreadable:
            first = reading.unreadable[0]
            if strict:
                raise self._archive.unreadable(first.id, first.reason)
            warnings.warn(
                f"{len(reading.unreadable)} of "
                f"{len(reading.unreadable) + len(reading.records)} records of {self.name} cannot "
                f"be read and are left out; list them with: schedenv records verify {self.name}",
                UnreadableRecordsWarning,
                stacklevel=2,
            )
        return reading.records

    def close(self) -> None:
        """Release the store; a second call does nothing."""
        self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse_foreign(self) -> None:
        for fingerprint, version in self._archive.origins():
            if fingerprint != self.fingerprint:
                shown = printable(fingerprint, limit=128)
                raise ForeignRecordsError(
                    f"{self.name} holds records of the hardware {shown}; this machine is "
                    f"{self.fingerprint}. Times do not carry over: choose another --out, or pass "
                    "--allow-foreign to keep both in one store"
                )
            if version != SPACE_VERSION:
                raise ForeignRecordsError(
                    f"{self.name} holds points of space version {version}; this schedenv uses "
                    f"version {SPACE_VERSION}. Choose another --out, or pass --allow-foreign"
                )


class RunRecords:
    """What one run sees of a store, which may hold many: its own records, and new ones of its own.

    Args:
        store: The store.
        run: The run; noted in the store if it is not there yet.

    Raises:
        StoreError: The store cannot be written.
    """

    def __init__(self, store: RecordStore, run: Run) -> None:
        self._store, self._run = store, run
        store.start(run)

    def records(self, task_hash: str | None = None) -> list[Record]:
        """The run's records, oldest first; those of one task, or all (None).

        Raises:
            StoreError: The store cannot be read.
        """
        return self._store.records(task_hash, run_id=self._run.id)

    def append(
        self,
        task_hash: str,
        task_name: str,
        canonical: str,
        result: Result,
        elapsed_s: float,
        conditions: Mapping[str, Any],
    ) -> None:
        """Store one result of the run; when this returns, it survives the process.

        Raises:
            StoreError: It cannot be written.
        """
        self._store.append(
            task_hash, task_name, canonical, result, elapsed_s, conditions, run_id=self._run.id
        )
