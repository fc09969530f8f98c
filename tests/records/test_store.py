"""The record store: what it keeps, what it survives, what it refuses."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from schedenv.errors import (
    CorruptStoreError,
    ForeignRecordsError,
    StoreError,
    UnreadableRecordsWarning,
)
from schedenv.measure import Result
from schedenv.records import RecordStore, Run, RunRecords

from .helpers import (
    ELSEWHERE,
    HERE,
    a_result,
    add,
    execute,
    forms,
    results,
    written,
)

# -- what it keeps ----------------------------------------------------------------------------


@given(result=results)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_result_is_read_back_as_it_was(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "any.sqlite"
    with RecordStore(path, HERE) as store:
        store.append("task", "gmm:1", "form", result, 3.5, {"load_1min": 0.5})
    with RecordStore(path, HERE) as store:
        record = store.records()[-1]
    assert record[:6] == ("task", "gmm:1", HERE, "form", result, 3.5)
    assert record.conditions == {"load_1min": 0.5}
    assert record.run_id is None


def test_records_come_oldest_first_and_by_task(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "r.sqlite", HERE) as store:
        for number, task in enumerate(["task-b", "task-a", "task-b"]):
            add(store, number, task)
        assert [r.canonical for r in store.records()] == ["form-0", "form-1", "form-2"]
        assert [r.canonical for r in store.records("task-b")] == ["form-0", "form-2"]
        assert store.records("task-c") == []


def test_a_new_store_is_empty_and_closing_twice_does_nothing(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "r.sqlite", HERE)
    assert store.records() == []
    store.close()
    store.close()


def a_run(name: str) -> Run:
    return Run(name, "task-a", "gmm", "random", 3, "host", {"trials": 5}, "2026-01-01T00:00:00")


def test_a_run_sees_its_own_records_in_a_store_of_many(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "r.sqlite", HERE) as store:
        one, other = (RunRecords(store, a_run(name)) for name in ("one", "other"))
        one.append("task-a", "gmm", "form-0", a_result(0), 0.5, {})
        other.append("task-a", "gmm", "form-0", a_result(0), 0.7, {})
        other.append("task-b", "gmm", "form-1", a_result(1), 0.9, {})
        assert [(r.canonical, r.elapsed_s) for r in one.records()] == [("form-0", 0.5)]
        assert [r.canonical for r in other.records("task-b")] == ["form-1"]
        assert [r.run_id for r in store.records()] == ["one", "other", "other"]
        again = RunRecords(store, a_run("one"))
        assert again.records() == one.records()


# -- what it survives -------------------------------------------------------------------------


def test_a_reader_sees_what_a_writer_that_is_still_open_has_committed(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with RecordStore(path, HERE) as writer, RecordStore(path, HERE) as reader:
        for number in range(3):
            add(writer, number)
            assert len(reader.records()) == number + 1


# -- what it refuses --------------------------------------------------------------------------


def random_bytes(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)


def truncated(path: Path) -> None:
    written(path)
    os.truncate(path, path.stat().st_size // 2)


def overwritten_in_the_middle(path: Path) -> None:
    written(path)
    middle = path.stat().st_size // 2
    with path.open("r+b") as file:
        file.seek(middle // 4096 * 4096)
        file.write(b"\xff" * 8192)


@pytest.mark.parametrize("damage", [random_bytes, truncated, overwritten_in_the_middle])
def test_a_damaged_file_is_refused_with_the_way_to_rescue_it(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "r.sqlite"
    damage(path)
    before = path.read_bytes()
    with pytest.raises(CorruptStoreError) as raised:
        RecordStore(path, HERE)
    message = str(raised.value)
    assert message.startswith(f"{path} is damaged (")
    assert message.endswith(
        f"); move it away, or rescue what can be read with: schedenv records rescue {path} --to NEW"
    )
    assert "\n" not in message
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    random_bytes(path)
    with pytest.raises(CorruptStoreError, match="file is not a database"):
        RecordStore(path, HERE)


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
        connection.execute("CREATE TABLE bands (name TEXT)")
    connection.close()
    with pytest.raises(CorruptStoreError) as raised:
        RecordStore(path, HERE)
    assert str(raised.value) == (
        f"{path} is a SQLite file but not a record store "
        "(it has the tables bands, songs); choose another --out"
    )
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    connection.close()
    assert tables == [("bands",), ("songs",)]


def test_records_of_other_hardware_are_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 1)
    with pytest.raises(ForeignRecordsError) as raised:
        RecordStore(path, ELSEWHERE)
    assert str(raised.value) == (
        f"{path} holds records of the hardware {HERE}; this machine is {ELSEWHERE}. Times do not "
        "carry over: choose another --out, or pass --allow-foreign to keep both in one store"
    )


def test_foreign_records_that_are_allowed_are_kept_beside_and_never_returned(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "r.sqlite", 2)
    with RecordStore(path, ELSEWHERE, allow_foreign=True) as store:
        assert store.records() == store.records("task-a") == []
        add(store, 7)
        assert [record.canonical for record in store.records()] == ["form-7"]
    with RecordStore(path, HERE, allow_foreign=True) as store:
        assert [record.canonical for record in store.records()] == ["form-0", "form-1"]


def test_points_of_another_space_version_are_refused_and_never_returned(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 2)
    execute(path, "UPDATE records SET space_version = 99")
    with pytest.raises(ForeignRecordsError) as raised:
        RecordStore(path, HERE)
    assert str(raised.value) == (
        f"{path} holds points of space version 99; this schedenv uses version 1. "
        "Choose another --out, or pass --allow-foreign"
    )
    with RecordStore(path, HERE, allow_foreign=True) as store:
        assert store.records() == []


@pytest.mark.parametrize("allow_foreign", [False, True])
def test_a_newer_schema_is_refused(allow_foreign: bool, tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 1)
    execute(path, "UPDATE about SET value = '3' WHERE key = 'schema_version'")
    with pytest.raises(ForeignRecordsError) as raised:
        RecordStore(path, HERE, allow_foreign=allow_foreign)
    assert str(raised.value) == (
        f"{path} has schema version 3, this schedenv reads up to version 2; "
        "upgrade it with: pip install --upgrade schedenv"
    )


def test_a_store_without_its_schema_version_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 1)
    execute(path, "UPDATE about SET key = 'something_else'")
    with pytest.raises(CorruptStoreError) as raised:
        RecordStore(path, HERE)
    assert str(raised.value) == (
        f"{path} does not say its schema version (expected a number, got ''); "
        f"rescue what can be read with: schedenv records rescue {path} --to NEW"
    )


def test_a_record_that_is_garbled_hides_no_other(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 3)
    execute(path, "UPDATE records SET result = '{\"point\": 3' WHERE id = 2")
    with RecordStore(path, HERE) as store:
        with pytest.warns(UnreadableRecordsWarning) as warned:
            assert forms(store) == ["form-0", "form-2"]
        with pytest.raises(CorruptStoreError) as raised:
            store.records(strict=True)
    assert str(warned[0].message) == (
        f"1 of 3 records of {path} cannot be read and are left out; "
        f"list them with: schedenv records verify {path}"
    )
    assert str(raised.value) == (
        f"record 2 of {path} cannot be read (Expected `array`, got `int` - at `$.point`); "
        f"list all such records with: schedenv records verify {path}"
    )


def test_a_folder_that_does_not_exist_is_a_store_error(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "r.sqlite"
    with pytest.raises(StoreError) as raised:
        RecordStore(path, HERE)
    assert str(raised.value) == (
        f"cannot use the record store {path}: unable to open database file; check that its "
        "directory exists and is writable, and that it is a file"
    )


def test_a_path_that_is_a_folder_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"^cannot use the record store {tmp_path}: "):
        RecordStore(tmp_path, HERE)


def test_a_copied_store_is_the_same_store(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 3)
    shutil.copy(path, tmp_path / "copy.sqlite")
    with RecordStore(path, HERE) as one, RecordStore(tmp_path / "copy.sqlite", HERE) as other:
        assert one.records() == other.records()
