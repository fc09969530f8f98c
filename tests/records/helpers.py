"""Small stores to test with."""

import sqlite3
import subprocess
import sys
from pathlib import Path

from hypothesis import strategies as st

from schedenv.measure import Phases, Result, Status
from schedenv.records import RecordStore
from schedenv.space import Point

HERE = "znver5-2c-512b-0123456789ab"
ELSEWHERE = "skylake-8c-256b-ba9876543210"
VERSION_1 = Path(__file__).parent / "assets" / "version_1.sqlite"

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


def a_result(number: int = 0, status: Status = Status.OK) -> Result:
    point = Point(0, (number, 1, 2))
    if status is not Status.OK:
        return Result(point=point, status=status, reason=f"an example of {status.value}")
    estimate_s = 1e-3 * (number + 1)
    return Result(
        point=point,
        status=status,
        samples_s=(estimate_s, 2 * estimate_s),
        estimate_s=1.25 * estimate_s,
    )


def add(
    store: RecordStore, number: int = 0, task: str = "task-a", status: Status = Status.OK
) -> None:
    result = a_result(number, status)
    store.append(task, "gmm", f"form-{number}", result, 0.5 * number, {"threads": 2})


def written(path: Path, count: int = 40, fingerprint: str = HERE) -> Path:
    """A closed store with some records, all in the main file."""
    with RecordStore(path, fingerprint) as store:
        for number in range(count):
            add(store, number)
    checkpoint(path)
    return path


def checkpoint(path: Path) -> None:
    """Move everything from the log to the main file."""
    execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")


def execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def forms(store: RecordStore) -> list[str]:
    return [record.canonical for record in store.records()]


WRITER = """
import sys
from pathlib import Path
from schedenv.measure import Result, Status
from schedenv.records import RecordStore
from schedenv.space import Point

place, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = RecordStore(place, "znver5-2c-512b-0123456789ab")
print("open", flush=True)
for number in range(count):
    result = Result(point=Point(0, (number,)), status=Status.OK, estimate_s=1.0)
    store.append("task", "gmm", f"{name}-{number}", result, 0.0, {"text": "x" * 500})
    print(f"{name}-{number}", flush=True)
"""


def start_writer(place: Path | str, name: str, count: int) -> subprocess.Popen[str]:
    """A process that appends `count` records and says so after each."""
    command = [sys.executable, "-c", WRITER, str(place), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
