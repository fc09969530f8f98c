"""The record store: what it keeps, what it survives, what it refuses."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedenv.errors import CorruptStoreError, ForeignRecordsError, StoreError
from schedenv.measure import Phases, Result, Status
from schedenv.records import RecordStore
from schedenv.space import Point

HERE = "znver5-2c-512b-0123456789ab"
ELSEWHERE = "skylake-8c-256b-ba9876543210"

seconds = st.floats(1e-9, 1e4, allow_nan=False)
results = st.builds(
    Result,
    point=st.builds(
        Point, st.integers(-1, 8), st.lists(st.integers(-2, 4096), max_size=30).map(tuple)
    ),
    status=st.sampled_from(Status),
    reason=st.none() | st.text(max_size=80),
    samples_s=st.lists(seconds, max_size=20).map(tuple),
    slowdowns=st.lists(seconds, max_size=3).map(tuple),
    estimate_s=st.none() | seconds,
    early_stopped=st.booleans(),
    max_error=st.none() | seconds,
    program=st.none() | st.just("0123456789abcdef"),
    phases=st.builds(Phases, seconds, seconds, seconds, seconds, seconds),
)


def a_result(number: int = 0) -> Result:
    point = Point(0, (number, 1, 2))
    return Result(point=point, status=Status.OK, samples_s=(1e-3, 2e-3), estimate_s=1.25e-3)


def add(store: RecordStore, number: int = 0, task: str = "task-a") -> None:
    store.append(task, "gmm", f"form-{number}", a_result(number), 0.5 * number, {"threads": 2})


def written(path: Path, count: int = 40) -> Path:
    """A closed store with some records, all in the main file."""
    with RecordStore(path, HERE) as store:
        for number in range(count):
            add(store, number)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


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
    assert record == ("task", "gmm:1", HERE, "form", result, 3.5)


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


# -- what it survives -------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from schedenv.measure import Result, Status
from schedenv.records import RecordStore
from schedenv.space import Point

path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = RecordStore(path, "znver5-2c-512b-0123456789ab")
print("open", flush=True)
for number in range(count):
    result = Result(point=Point(0, (number,)), status=Status.OK, estimate_s=1.0)
    store.append("task", "gmm", f"{name}-{number}", result, 0.0, {"text": "x" * 500})
    print(f"{name}-{number}", flush=True)
"""


def start_writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("acknowledged", [1, 50, 173])
def test_a_writer_killed_with_kill_9_loses_nothing_that_it_was_promised(
    acknowledged: int, tmp_path: Path
) -> None:
    path = tmp_path / "r.sqlite"
    with start_writer(path, "w", 1_000_000) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline().strip() for _ in range(acknowledged + 1)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read().split()
    promised = [line for line in lines[1:] if line]
    with RecordStore(path, HERE) as store:
        kept = [record.canonical for record in store.records()]
        add(store, 1)
    assert len(promised) >= acknowledged
    # One more may have been committed than could be acknowledged; its line may be cut off.
    assert kept[: len(promised) - 1] == promised[:-1]
    assert kept == [f"w-{number}" for number in range(len(kept))]
    assert len(promised) - 1 <= len(kept) <= len(promised) + 1


def test_two_processes_writing_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    RecordStore(path, HERE).close()
    writers = [start_writer(path, name, 100) for name in ("a", "b")]
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    with RecordStore(path, HERE) as store:
        kept = [record.canonical for record in store.records()]
    for name in ("a", "b"):
        mine = [form for form in kept if form.startswith(name)]
        assert mine == [f"{name}-{number}" for number in range(100)]
    assert len(kept) == 200


OPENER = """
import sys, time
from pathlib import Path
from schedenv.records import RecordStore

print("ready", flush=True)
start_s = float(sys.stdin.readline())
for number in range(20):
    time.sleep(max(0.0, start_s + 0.1 * number - time.time()))
    RecordStore(Path(sys.argv[1]) / f"{number}.sqlite", "here").close()
"""


def test_two_processes_may_create_one_store_at_the_same_moment(tmp_path: Path) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    openers = [
        subprocess.Popen([sys.executable, "-c", OPENER, str(tmp_path)], text=True, **pipes)
        for _ in range(2)
    ]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    start = f"{time.time() + 0.5}\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write(start)
        opener.stdin.flush()
    errors = [opener.communicate(timeout=60)[1] for opener in openers]
    assert [error.strip().splitlines()[-1:] for error in errors] == [[], []]


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
        f"); move it away, or rescue what can be read with: sqlite3 {path} .recover"
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


def execute(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


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
    execute(path, "UPDATE about SET value = '2' WHERE key = 'schema_version'")
    with pytest.raises(ForeignRecordsError) as raised:
        RecordStore(path, HERE, allow_foreign=allow_foreign)
    assert str(raised.value) == (
        f"{path} has schema version 2, this schedenv reads version 1; "
        "upgrade schedenv or choose another --out"
    )


def test_a_store_without_its_schema_version_is_refused_as_schedenvs_own_error(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "r.sqlite", 1)
    execute(path, "UPDATE about SET key = 'something_else'")
    with pytest.raises(StoreError, match=str(path)):
        RecordStore(path, HERE)


def test_a_record_whose_result_is_garbled_is_refused_as_schedenvs_own_error(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "r.sqlite", 1)
    execute(path, "UPDATE records SET result = '{\"point\": 3'")
    with RecordStore(path, HERE) as store, pytest.raises(StoreError, match=str(path)):
        store.records()


def test_a_folder_that_does_not_exist_is_a_store_error(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "r.sqlite"
    with pytest.raises(StoreError) as raised:
        RecordStore(path, HERE)
    assert str(raised.value) == (
        f"cannot use the record store {path}: unable to open database file; check that the disk "
        "is not full, that the file is writable, and that no other program locks it"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 1)
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        with (
            pytest.raises(StoreError, match=f"^cannot use the record store {path}: "),
            RecordStore(path, HERE) as store,
        ):
            add(store)
    finally:
        tmp_path.chmod(0o700)


def test_a_path_that_is_a_folder_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"^cannot use the record store {tmp_path}: "):
        RecordStore(tmp_path, HERE)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from schedenv.errors import StoreError
from schedenv.measure import Result, Status
from schedenv.records import RecordStore
from schedenv.space import Point

store = RecordStore(Path(sys.argv[1]), "znver5-2c-512b-0123456789ab")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
result = Result(point=Point(0, (1,)), status=Status.OK, estimate_s=1.0)
number = 0
try:
    while True:
        store.append("task", "gmm", f"w-{number}", result, 0.0, {"text": "x" * 20_000})
        number += 1
except StoreError as error:
    print(number, str(error).startswith(f"cannot use the record store {sys.argv[1]}: "))
"""


def test_a_disk_that_fills_up_is_a_store_error_and_what_was_written_stays(tmp_path: Path) -> None:
    # No file of the process may grow beyond 200 kB: to SQLite, the same as a full disk.
    path = tmp_path / "r.sqlite"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    count, explained = done.stdout.split()
    assert int(count) > 0
    assert explained == "True"
    with RecordStore(path, HERE) as store:
        kept = [record.canonical for record in store.records()]
        assert kept == [f"w-{number}" for number in range(int(count))]
        add(store)


def test_a_copied_store_is_the_same_store(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 3)
    shutil.copy(path, tmp_path / "copy.sqlite")
    with RecordStore(path, HERE) as one, RecordStore(tmp_path / "copy.sqlite", HERE) as other:
        assert one.records() == other.records()
