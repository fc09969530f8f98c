"""Stores of earlier versions: upgraded when they are opened, the original kept beside them."""

import multiprocessing
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from schedenv.errors import StoreError
from schedenv.measure import Status
from schedenv.records import Archive, RecordStore
from schedenv.records.migrations import LEGACY_RUN
from schedenv.records.record import digest

from .helpers import HERE, VERSION_1, add


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store as version 0.1.0 wrote it: one record of each status."""
    return Path(shutil.copy(VERSION_1, tmp_path / "records.sqlite"))


def columns(path: Path) -> dict[str, list[Any]]:
    connection = sqlite3.connect(path)
    names = ("about", "records", "runs")
    found = {
        name: [row[1:4] for row in connection.execute(f"PRAGMA table_info({name})")]
        for name in names
    }
    indexes = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name"
    )
    found["indexes"] = [row[0] for row in indexes]
    connection.close()
    return found


def test_a_version_1_store_is_read_whole(old: Path) -> None:
    with RecordStore(old, HERE) as store:
        records = store.records(strict=True)
    assert [record.result.status for record in records] == list(Status)
    assert records[0].result.samples_s == (1.5e-5, 1.25e-5, 1.75e-5)
    assert records[0].result.drifts == ()
    assert records[0].conditions["threads"] == 2
    assert records[2].result.reason == "an example of build_error"
    assert [record.elapsed_s for record in records] == [0.25 * n for n in range(len(records))]
    assert {record.run_id for record in records} == {LEGACY_RUN}


def test_an_upgraded_store_is_like_a_new_one(old: Path, tmp_path: Path) -> None:
    with RecordStore(old, HERE) as store:
        add(store)
        assert len(store.records()) == len(Status) + 1
    RecordStore(tmp_path / "new.sqlite", HERE).close()
    assert columns(old) == columns(tmp_path / "new.sqlite")
    with Archive(old) as archive:
        rows = list(archive.rows())
        for row, record in zip(rows, archive.read().records, strict=True):
            key = (record.task_hash, record.fingerprint, record.space_version, record.canonical)
            assert row["digest"] == digest(*key, record.result)
        assert archive.runs()[LEGACY_RUN].task_name == "gmm:1x32x32x32"


def test_the_original_is_kept_beside_it_and_says_so(old: Path) -> None:
    with RecordStore(old, HERE) as store:
        assert store.backup == old.with_name("records.sqlite.v1.bak")
    connection = sqlite3.connect(f"file:{store.backup}?mode=ro", uri=True)
    assert connection.execute("SELECT value FROM about").fetchall() == [("1",)]
    assert connection.execute("SELECT count(*) FROM records").fetchone() == (len(Status),)
    connection.close()
    with RecordStore(old, HERE) as store:
        assert store.backup is None


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(old: Path, tmp_path: Path) -> None:
    # A folder where the copy has to go.
    partial = tmp_path / "records.sqlite.v1.bak.partial"
    partial.mkdir()
    with pytest.raises(StoreError) as raised:
        RecordStore(old, HERE)
    assert str(raised.value).startswith(
        f"{old} has schema version 1 and must be upgraded, but no copy of it can be written to "
        f"{old}.v1.bak: "
    )
    assert str(raised.value).endswith("; free some space, or copy the store elsewhere")
    partial.rmdir()
    with RecordStore(old, HERE) as store:
        assert len(store.records(strict=True)) == len(Status)


def test_a_step_that_fails_is_undone_as_a_whole(old: Path) -> None:
    connection = sqlite3.connect(old)
    # The last step of the upgrade cannot be done.
    connection.execute("CREATE TABLE ix_records_digest (other TEXT)")
    connection.commit()
    connection.close()
    before = columns(old)
    with pytest.raises(StoreError):
        RecordStore(old, HERE)
    assert columns(old) == before


def open_it(path: Path, results: Any) -> None:
    with RecordStore(path, HERE) as store:
        results.put(len(store.records(strict=True)))


def test_two_processes_may_upgrade_one_store_at_the_same_moment(old: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [context.Process(target=open_it, args=(old, results)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [results.get() for _ in processes] == [len(Status)] * 3


def test_a_record_that_is_garbled_does_not_hinder_the_upgrade(old: Path) -> None:
    connection = sqlite3.connect(old)
    connection.execute("UPDATE records SET result = '{' WHERE id = 3")
    connection.commit()
    connection.close()
    with Archive(old) as archive:
        reading = archive.read()
    assert len(reading.records) == len(Status) - 1
    assert [row.id for row in reading.unreadable] == [3]
