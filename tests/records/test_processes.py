"""Several processes on one store, and what is left when one of them is killed, stopped or slow."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from schedenv.errors import StoreLockedError
from schedenv.records import RecordStore

from .helpers import HERE, add, forms, start_writer, written


@pytest.mark.parametrize("acknowledged", [1, 173])
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
for number in range(6):
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


@pytest.mark.slow
def test_ten_processes_writing_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    names = [f"w{number}" for number in range(10)]
    writers = [start_writer(path, name, 100) for name in names]
    for writer in writers:
        writer.communicate(timeout=240)
        assert writer.returncode == 0
    with RecordStore(path, HERE) as store:
        kept = forms(store)
    for name in names:
        mine = [form for form in kept if form.startswith(f"{name}-")]
        assert mine == [f"{name}-{number}" for number in range(100)]
    assert len(kept) == 1000


# -- locks ------------------------------------------------------------------------------------

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE records SET task_name = 'half done'")
print("held", flush=True)
sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of writing."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_store_that_stays_locked_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 2)
    holder = hold(path)
    try:
        holder.send_signal(signal.SIGSTOP)
        # Opening and reading never wait.
        with RecordStore(path, HERE, lock_wait_s=0.2) as store:
            assert forms(store) == ["form-0", "form-1"]
            with pytest.raises(StoreLockedError) as raised:
                add(store, 2)
            assert str(raised.value) == (
                f"{path} has been locked by another process for 0.2 s; "
                f"wait until that process has ended, or find it with: fuser {path}"
            )
            holder.kill()
            holder.wait()
            add(store, 2)
            assert forms(store) == ["form-0", "form-1", "form-2"]
    finally:
        holder.kill()
        holder.communicate()


def test_the_lock_of_a_killed_process_is_gone_with_it_and_so_is_what_it_half_wrote(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "r.sqlite", 2)
    holder = hold(path)
    holder.kill()
    holder.communicate()
    with RecordStore(path, HERE, lock_wait_s=0.2) as store:
        add(store, 2)
        assert [record.task_name for record in store.records()] == ["gmm"] * 3
