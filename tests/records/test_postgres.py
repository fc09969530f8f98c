"""The same store on PostgreSQL, on a real server."""

import itertools
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from schedenv.errors import (
    ForeignRecordsError,
    InputError,
    StoreError,
    StoreLockedError,
    UnreadableRecordsWarning,
)
from schedenv.measure import Result, Status
from schedenv.records import Archive, RecordStore
from schedenv.records.database import without_password
from schedenv.space import Point

from ..postgres_server import Server, running_server
from .helpers import ELSEWHERE, HERE, a_result, add, forms, start_writer

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


@pytest.fixture
def url(server: Server) -> str:
    """A new, empty database."""
    return server.new_database(f"records{next(_numbers)}")


def name_in(url: str) -> str:
    """The database that a URL leads to."""
    return url.split("/")[3].partition("?")[0]


def test_results_are_read_back_as_they_were(url: str) -> None:
    nasty = "quotes ' \" \\ , tabs \t, zero \0, emoji \U0001f600, escapes \x1b[31m"
    written = [a_result(0), Result(point=Point(-1, ()), status=Status.CRASH, reason=nasty)]
    with RecordStore(url, HERE) as store:
        for number, result in enumerate(written):
            store.append("task", "gmm:1", f"form-{number}", result, 3.5, {"load_1min": 0.5})
    with RecordStore(url, HERE) as store:
        assert [record.result for record in store.records(strict=True)] == written
        assert store.records()[0].conditions == {"load_1min": 0.5}


def test_records_come_oldest_first_and_by_task(url: str) -> None:
    with RecordStore(url, HERE) as store:
        for number, task in enumerate(["task-b", "task-a", "task-b"]):
            add(store, number, task)
        assert forms(store) == ["form-0", "form-1", "form-2"]
        assert [r.canonical for r in store.records("task-b")] == ["form-0", "form-2"]


def test_hardware_is_kept_apart(url: str) -> None:
    with RecordStore(url, HERE) as store:
        add(store)
    with pytest.raises(ForeignRecordsError, match=f"holds records of the hardware {HERE}"):
        RecordStore(url, ELSEWHERE)
    with RecordStore(url, ELSEWHERE, allow_foreign=True) as store:
        assert store.records() == []


def test_a_garbled_row_hides_no_other(url: str, server: Server) -> None:
    with RecordStore(url, HERE) as store:
        add(store, 0)
        add(store, 1)
        name = name_in(url)
        server.execute("UPDATE records SET result = '{' WHERE canonical = 'form-0'", name)
        server.execute("UPDATE records SET conditions = repeat('[', 2000000) WHERE id = 1", name)
        with pytest.warns(UnreadableRecordsWarning):
            assert forms(store) == ["form-1"]


def test_a_newer_schema_is_refused(url: str, server: Server) -> None:
    RecordStore(url, HERE).close()
    server.execute("UPDATE about SET value = '7'", name_in(url))
    with pytest.raises(ForeignRecordsError) as raised:
        RecordStore(url, HERE)
    assert str(raised.value) == (
        f"{url} has schema version 7, this schedenv reads up to version 2; "
        "upgrade it with: pip install --upgrade schedenv"
    )


def test_several_processes_create_and_write_one_store_at_once(url: str) -> None:
    names = ["a", "b", "c"]
    writers = [start_writer(url, name, 50) for name in names]
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    with RecordStore(url, HERE) as store:
        kept = forms(store)
    assert sorted(kept) == sorted(f"{name}-{number}" for name in names for number in range(50))


@pytest.mark.slow
def test_ten_processes_writing_at_once_lose_nothing(url: str) -> None:
    writers = [start_writer(url, f"w{number}", 100) for number in range(10)]
    for writer in writers:
        writer.communicate(timeout=240)
        assert writer.returncode == 0
    with RecordStore(url, HERE) as store:
        assert len(set(forms(store))) == 1000


def test_a_writer_killed_with_kill_9_loses_nothing_that_it_was_promised(url: str) -> None:
    with start_writer(url, "w", 1_000_000) as writer:
        assert writer.stdout is not None
        promised = [writer.stdout.readline().strip() for _ in range(60)][1:]
        writer.send_signal(signal.SIGKILL)
    with RecordStore(url, HERE) as store:
        kept = forms(store)
    assert kept[: len(promised)] == promised


LOCKER = """
import psycopg, sys
connection = psycopg.connect(sys.argv[1])
connection.execute("LOCK TABLE records")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_store_that_stays_locked_is_an_error_that_says_what_to_do(url: str) -> None:
    with RecordStore(url, HERE, lock_wait_s=0.2) as store:
        add(store)
        with subprocess.Popen(
            [sys.executable, "-c", LOCKER, url.replace("+psycopg", "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as locker:
            assert locker.stdout is not None
            assert locker.stdout.readline() == "held\n"
            with pytest.raises(StoreLockedError) as raised:
                add(store, 1)
            assert str(raised.value) == (
                f"{url} has been locked by another session for 0.2 s; "
                "wait until it has ended, or find it in the server's view pg_stat_activity"
            )
            locker.kill()
        add(store, 1)
        assert len(store.records()) == 2


def test_a_server_that_goes_away_is_a_store_error_and_the_store_goes_on_when_it_is_back(
    url: str, server: Server
) -> None:
    with RecordStore(url, HERE) as store:
        add(store, 0)
        server.stop()
        try:
            with pytest.raises(StoreError) as raised:
                add(store, 1)
        finally:
            server.start()
        assert str(raised.value).startswith(f"cannot use the record store {url}: ")
        assert str(raised.value).endswith(
            "; check that the server runs, that the database exists, and that PGPASSWORD or "
            "~/.pgpass has the password"
        )
        add(store, 1)
        assert forms(store) == ["form-0", "form-1"]


def test_a_database_that_does_not_exist_is_a_store_error(server: Server) -> None:
    with pytest.raises(StoreError, match='database "missing" does not exist'):
        RecordStore(server.url("missing"), HERE)


def test_an_archive_of_it_deletes_and_lists_runs(url: str) -> None:
    with RecordStore(url, HERE) as store:
        for number in range(4):
            add(store, number)
    with Archive(url) as archive:
        archive.delete([1, 3])
        assert [record.id for record in archive.read().records] == [2, 4]
        assert archive.runs() == {}


def test_a_password_is_never_shown() -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/none"
    assert without_password(url) == "postgresql+psycopg://me@127.0.0.1:1/none"
    assert without_password("postgresql://me@h/n?password=secret&sslmode=require") == (
        "postgresql+psycopg://me@h/n?sslmode=require"
    )
    with pytest.raises(StoreError) as raised:
        RecordStore(url, HERE)
    assert "secret" not in str(raised.value)
    assert str(raised.value).startswith(
        "cannot use the record store postgresql+psycopg://me@127.0.0.1:1/none: "
    )


@pytest.mark.parametrize("scheme", ["mysql", "sqlite", "postgresql+asyncpg", "\x1b[31m"])
def test_another_kind_of_url_is_refused(scheme: str, url_error: Callable[[str], str]) -> None:
    assert url_error(f"{scheme}://host/name") == (
        "expected a store as a path or as postgresql+psycopg://USER@HOST/NAME, got one that "
        f"begins with '{scheme}'"
    ).replace("\x1b", "\\x1b")


@pytest.fixture
def url_error() -> Callable[[str], str]:
    def message(url: str) -> str:
        with pytest.raises(InputError) as raised:
            RecordStore(url, HERE)
        return str(raised.value)

    return message
