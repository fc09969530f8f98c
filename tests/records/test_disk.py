"""Full and read-only disks: typed errors, nothing lost, and the store goes on afterwards."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedenv.errors import StoreError
from schedenv.records import Archive, RecordStore

from .helpers import HERE, VERSION_1, add, forms, written

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from schedenv.errors import StoreError
from schedenv.measure import Result, Status
from schedenv.records import RecordStore
from schedenv.space import Point

def add(number):
    store.append("task", "gmm", f"w-{number}", result, 0.0, {"text": "x" * 20_000})

store = RecordStore(Path(sys.argv[1]), "znver5-2c-512b-0123456789ab")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
result = Result(point=Point(0, (1,)), status=Status.OK, estimate_s=1.0)
number = 0
try:
    while True:
        add(number)
        number += 1
except StoreError as error:
    print(error)
for attempt in range(3):
    try:
        add(number)
    except StoreError:
        continue
    number += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
add(number)
print(number)
"""


def test_a_disk_that_fills_up_is_a_store_error_and_the_store_goes_on_when_there_is_space(
    tmp_path: Path,
) -> None:
    # No file of the process may grow beyond 200 kB: to SQLite, the same as a full disk.
    path = tmp_path / "r.sqlite"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    message, count = done.stdout.splitlines()
    assert message.startswith(f"cannot write the record store {path}: d")
    assert message.endswith(
        " bytes are free on its disk; free some space and continue: everything stored before is "
        "kept"
    )
    assert int(count) > 0
    with RecordStore(path, HERE) as store:
        assert forms(store) == [f"w-{number}" for number in range(int(count) + 1)]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = Path(tempfile.mkdtemp())
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    ) if shutil.which("mount") else None  # fmt: skip
    if done is None or done.returncode != 0:
        folder.rmdir()
        pytest.skip("a tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def add_many(store: RecordStore, numbers: range) -> None:
    for number in numbers:
        add(store, number)


def test_a_full_file_system_is_named_with_its_free_bytes(small_disk: Path) -> None:
    path = small_disk / "r.sqlite"
    with RecordStore(path, HERE) as store:
        for number in range(5):
            add(store, number)
        filler = small_disk / "filler"
        with pytest.raises(OSError, match="No space"):
            fill(filler)
        # The log has some pages left to be written over.
        with pytest.raises(StoreError) as raised:
            add_many(store, range(5, 200))
        kept = forms(store)
        assert kept[:5] == [f"form-{number}" for number in range(5)]
        assert str(raised.value) == (
            f"cannot write the record store {path}: database or disk is full, 0 bytes are free on "
            "its disk; free some space and continue: everything stored before is kept"
        )
        filler.unlink()
        add(store, 1000)
    with RecordStore(path, HERE) as store:
        assert forms(store) == [*kept, "form-1000"]


READER = """
import os, sys
from pathlib import Path
from schedenv.errors import StoreError
from schedenv.records import Archive, RecordStore, Run
from schedenv.measure import Result, Status
from schedenv.space import Point

here = "znver5-2c-512b-0123456789ab"
# Imports what is imported late, while it still may.
RecordStore(Path(sys.argv[2]), here).close()
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    with RecordStore(Path(sys.argv[1]), here) as store:
        print(len(store.records()))
        store.start(Run("id", "task-a", "gmm", None, None, None, {}, "now"))
except StoreError as error:
    print(error)
"""


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that anybody may read and nobody but root may write."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


def read_as_nobody(path: Path, tmp_path: Path) -> list[str]:
    for file in path.parent.iterdir():
        file.chmod(0o444)
    path.parent.chmod(0o555)
    command = [sys.executable, "-c", READER, str(path), str(tmp_path / "other.sqlite")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_store_in_a_folder_that_cannot_be_written_is_read_and_says_why_it_is_not_written(
    read_only: Path, tmp_path: Path
) -> None:
    path = written(read_only / "r.sqlite", 3)
    assert read_as_nobody(path, tmp_path) == [
        "3",
        f"cannot write the record store {path}: attempt to write a readonly database; make the "
        "file and its directory writable, or copy it to where you may write",
    ]


def test_results_left_in_a_log_that_cannot_be_written_are_not_overlooked(
    read_only: Path, tmp_path: Path
) -> None:
    path = tmp_path / "r.sqlite"
    with RecordStore(path, HERE) as store:
        add(store)
        for name in ("r.sqlite", "r.sqlite-wal"):
            shutil.copy(tmp_path / name, read_only / name)
    copy = read_only / "r.sqlite"
    assert read_as_nobody(copy, tmp_path) == [
        f"{copy} cannot be written, and results are left in its log r.sqlite-wal; copy both to a "
        "directory that you may write, and open the copy"
    ]


def test_an_old_store_that_cannot_be_written_is_not_upgraded(
    read_only: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(VERSION_1, read_only / "r.sqlite"))
    assert read_as_nobody(path, tmp_path) == [
        f"{path} has schema version 1 and cannot be written, so it cannot be upgraded to version "
        "2; copy it to where you may write"
    ]


def test_a_store_that_cannot_be_created_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="cannot use the record store"):
        Archive(tmp_path / "file" / "r.sqlite")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
