"""Files cut, flipped and overwritten: what opening them does, and what a rescue saves."""

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedenv.errors import CorruptStoreError, ForeignRecordsError, InputError
from schedenv.records import Archive, RecordStore
from schedenv.records.rescue import Rescued, rescue

from .helpers import HERE, VERSION_1, a_result, add, execute, written

# Small pages make small files, so that many cuts can be tried.
PAGE_BYTES = 512
LOST = st.integers(0, 1 << 20)


class Crashed:
    """What a process killed in the middle leaves: some records in the file, some in the log.

    Attributes:
        main: The file; holds the first four records.
        log: Its log; holds three more.
        commits: How long the log was after each of its three commits.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "crashed.sqlite"
        execute(path, f"PRAGMA page_size = {PAGE_BYTES}", "VACUUM")
        log = path.with_name(path.name + "-wal")
        self.commits = []
        with RecordStore(path, HERE) as store:
            for number in range(4):
                add(store, number)
            execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
            for number in range(4, 7):
                add(store, number)
                self.commits.append(log.stat().st_size)
            self.main, self.log = path.read_bytes(), log.read_bytes()


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    return Crashed(tmp_path_factory.mktemp("crashed"))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder in memory, where there is one: thousands of stores are opened and synced here."""
    memory = Path("/dev/shm")
    where = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="damaged-", dir=where) as name:
        yield Path(name)


def put(folder: Path, main: bytes, log: bytes | None) -> Path:
    for old in folder.glob("*"):
        old.unlink()
    path = folder / "r.sqlite"
    path.write_bytes(main)
    if log is not None:
        path.with_name("r.sqlite-wal").write_bytes(log)
    return path


def opened(
    folder: Path, main: bytes, log: bytes | None, *, exactly: bool = True
) -> list[str] | None:
    """The canonical forms that opening gives, their samples checked; None if it is refused.

    A file that is only cut is never refused as one from other hardware; a letter of the hardware's
    name that was overwritten (not `exactly`) may well be.
    """
    path = put(folder, main, log)
    try:
        with RecordStore(path, HERE) as store:
            records = store.records(strict=True)
    except CorruptStoreError as error:
        return None if str(path) in str(error) and "\n" not in str(error) else [str(error)]
    except ForeignRecordsError:
        if exactly:
            raise
        return None
    for record in records:
        expected = a_result(int(record.canonical.removeprefix("form-")))
        assert record.result.samples_s == expected.samples_s
        assert record.result == expected or not exactly
    return [record.canonical for record in records]


def forms(count: int) -> list[str]:
    return [f"form-{number}" for number in range(count)]


def check_log_cut(crashed: Crashed, folder: Path, cut: int) -> None:
    whole = sum(cut >= commit for commit in crashed.commits)
    assert opened(folder, crashed.main, crashed.log[:cut]) == forms(4 + whole), cut


def check_main_cut(crashed: Crashed, folder: Path, cut: int, log: bytes | None) -> None:
    whole = 4 if log is None else 7
    found = opened(folder, crashed.main[:cut], log)
    # A file of no bytes is a new store, unless there is a log beside it.
    empty = [[]] if cut == 0 and log is None else []
    assert found in [None, forms(whole), *empty], cut


def test_a_log_cut_anywhere_gives_all_that_was_committed_before_the_cut(
    crashed: Crashed, folder: Path
) -> None:
    edges = [c + d for c in [0, 32, *crashed.commits] for d in (-1, 0, 1)]
    for cut in [*edges, *range(100, len(crashed.log), 977)]:
        check_log_cut(crashed, folder, max(0, cut))


def test_a_file_cut_anywhere_is_whole_or_refused(crashed: Crashed, folder: Path) -> None:
    pages = range(0, len(crashed.main) + 1, PAGE_BYTES)
    for cut in [*pages, *(page + 1 for page in pages), 16, 99, 100, len(crashed.main) - 1]:
        check_main_cut(crashed, folder, cut, None)
        check_main_cut(crashed, folder, cut, crashed.log)


@pytest.mark.slow
def test_a_log_cut_at_every_byte(crashed: Crashed, folder: Path) -> None:
    # Up to the first commit and a page further; what follows is the same again.
    for cut in range(crashed.commits[0] + PAGE_BYTES):
        check_log_cut(crashed, folder, cut)


@pytest.mark.slow
def test_a_file_cut_at_every_byte(crashed: Crashed, folder: Path) -> None:
    for cut in range(len(crashed.main) + 1):
        check_main_cut(crashed, folder, cut, crashed.log if cut % 2 else None)


@given(flips=st.lists(st.tuples(LOST, st.integers(0, 255)), min_size=1, max_size=20))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_wrong_bytes_anywhere_are_noticed_where_they_matter_or_the_file_is_refused(
    flips: list[tuple[int, int]], crashed: Crashed, folder: Path
) -> None:
    main = bytearray(crashed.main)
    for position, value in flips:
        main[position % len(main)] = value
    # What a digest does not cover (an estimate, a reason) may be another one now.
    found = opened(folder, bytes(main), None, exactly=False)
    assert found is None or set(found) <= set(forms(4))


def test_a_record_without_its_hardware_is_damage_not_other_hardware(
    crashed: Crashed, folder: Path
) -> None:
    path = put(folder, crashed.main, None)
    execute(
        path,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '')",
    )
    execute(path, "UPDATE records SET fingerprint = NULL WHERE id = 2")
    with pytest.raises(CorruptStoreError) as raised:
        RecordStore(path, HERE)
    assert str(raised.value) == (
        f"{path} is damaged (a record without its hardware or space version); move it away, or "
        f"rescue what can be read with: schedenv records rescue {path} --to NEW"
    )


def test_an_empty_file_beside_a_log_is_not_taken_for_a_new_store(
    crashed: Crashed, folder: Path
) -> None:
    path = put(folder, b"", crashed.log)
    with pytest.raises(CorruptStoreError) as raised:
        RecordStore(path, HERE)
    assert str(raised.value) == (
        f"{path} is damaged (the file is empty, its log is not); move it away, or rescue what can "
        f"be read with: schedenv records rescue {path} --to NEW"
    )
    assert path.with_name("r.sqlite-wal").read_bytes() == crashed.log


def test_samples_that_were_changed_are_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 3)
    execute(path, "UPDATE records SET result = replace(result, '0.002', '0.001') WHERE id = 2")
    with Archive(path) as archive:
        reading = archive.read()
        assert archive.damage() == []
    assert [record.id for record in reading.records] == [1, 3]
    assert reading.unreadable == [
        (2, "its key or its samples were changed: they do not fit its digest")
    ]


# -- rescue -----------------------------------------------------------------------------------


def rescued(source: Path, target: Path) -> tuple[Rescued, list[str]]:
    target.unlink(missing_ok=True)
    with Archive(target) as archive:
        report = rescue(source, archive)
        reading = archive.read()
    assert reading.unreadable == []
    return report, [record.canonical for record in reading.records]


def overwrite(path: Path, pages: Iterable[int], page_bytes: int = 4096) -> None:
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * page_bytes)
            file.write(os.urandom(page_bytes))


def test_a_whole_store_is_copied_and_not_touched(crashed: Crashed, folder: Path) -> None:
    path = put(folder, crashed.main, crashed.log)
    report, kept = rescued(path, folder / "new.sqlite")
    assert kept == forms(7)
    assert (report.damage, report.missing, report.unreadable) == (None, 0, {})
    assert path.read_bytes() == crashed.main
    assert path.with_name("r.sqlite-wal").read_bytes() == crashed.log


def test_rows_are_found_without_the_pages_that_lead_to_them(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 200)
    connection = sqlite3.connect(path)
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'records'")
    number = root.fetchone()[0]
    connection.close()
    # The head of the file, the schema, and the root of the records: SQLite has nothing left.
    overwrite(path, [0, number - 1])
    with pytest.raises(CorruptStoreError):
        RecordStore(path, HERE)
    report, kept = rescued(path, tmp_path / "new.sqlite")
    assert kept == forms(200)
    assert (report.records, report.from_pages, report.missing) == (200, 200, 0)


def test_what_is_lost_is_said(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 60)
    with Archive(path) as archive:
        archive.delete([5])
    size = path.stat().st_size
    overwrite(path, [size // 4096 // 2])
    execute_quietly(path, "UPDATE records SET result = '{' WHERE id = 3")
    report, kept = rescued(path, tmp_path / "new.sqlite")
    assert report.damage is not None
    assert report.records == len(kept) < 60
    assert set(kept) < set(forms(60))
    assert report.missing + report.records + len(report.unreadable) == 60


def execute_quietly(path: Path, statement: str) -> None:
    try:
        execute(path, statement)
    except sqlite3.DatabaseError:
        return


@given(pages=st.sets(LOST, min_size=1, max_size=4))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_rescue_never_fails_and_never_invents(
    pages: set[int], crashed: Crashed, folder: Path
) -> None:
    path = put(folder, crashed.main, crashed.log)
    overwrite(path, {page % (len(crashed.main) // PAGE_BYTES) for page in pages}, PAGE_BYTES)
    report, kept = rescued(path, folder / "new.sqlite")
    assert set(kept) <= set(forms(7))
    assert len(set(kept)) == len(kept) == report.records


def test_a_version_1_store_is_rescued_page_by_page_too(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    path.write_bytes(VERSION_1.read_bytes())
    overwrite(path, [0])
    report, kept = rescued(path, tmp_path / "new.sqlite")
    assert report.from_pages == len(kept) == 10


def test_a_file_that_does_not_exist_cannot_be_rescued(tmp_path: Path) -> None:
    with Archive(tmp_path / "new.sqlite") as target, pytest.raises(InputError):
        rescue(tmp_path / "missing.sqlite", target)
