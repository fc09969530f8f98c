"""Run the command line in this process, or in one of its own that can be killed."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from schedenv.cli import main

MARK = "SCHEDENV_TEST_RUN"
PROGRAM = (sys.executable, "-c", "from schedenv.cli import main; main()")


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def schedenv(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """`schedenv WORD...` in this process, exit code and both streams included."""

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["schedenv", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capfd.readouterr()
        code = exit.value.code
        return Done(code if isinstance(code, int) else 0, out, err)

    return run


class Started:
    """`schedenv WORD...` in a process of its own."""

    def __init__(self, out: Path, *words: object) -> None:
        self.out = out
        self._mark = f"{time.time_ns()}"
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, words), "--out", str(out)],
            env={**os.environ, MARK: self._mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_rows(self, count: int, limit_s: float = 90) -> None:
        """Wait until the store holds so many results."""
        end_s = time.monotonic() + limit_s
        while len(rows(self.out)) < count:
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end_s, "the run stores nothing"
            time.sleep(0.05)

    def wait(self, limit_s: float = 90) -> Done:
        """How it ends."""
        out, err = self.process.communicate(timeout=limit_s)
        return Done(self.process.returncode, out, err)

    def workers(self) -> list[int]:
        """Process ids of its measurement workers, orphans included."""
        return [
            process.pid
            for process in psutil.process_iter()
            if process.pid != self.process.pid and _is_worker(process, self._mark)
        ]

    def workers_after(self, limit_s: float = 5) -> list[int]:
        """Its workers that are still there after a while."""
        end_s = time.monotonic() + limit_s
        while (left := self.workers()) and time.monotonic() < end_s:
            time.sleep(0.1)
        return left

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def _is_worker(process: psutil.Process, mark: str) -> bool:
    try:
        return (
            process.status() != psutil.STATUS_ZOMBIE
            and any("schedenv.measure.worker" in word for word in process.cmdline())
            and process.environ().get(MARK) == mark
        )
    except psutil.Error:
        return False


@pytest.fixture
def start() -> Iterator[Callable[..., Started]]:
    """Start a command with `start(out, word...)`; it is killed at the end of the test."""
    started: list[Started] = []

    def run(out: Path, *words: object) -> Started:
        started.append(Started(out, *words))
        return started[-1]

    yield run
    for one in started:
        one.kill()


def rows(out: Path) -> list[tuple[int, str, str]]:
    """Identity, canonical form and point of every result stored in a run directory."""
    path = out / "records.sqlite"
    if not path.exists():
        return []
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        return list(connection.execute("select id, canonical, point from records order by id"))
    except sqlite3.OperationalError:  # the table is not made yet
        return []
    finally:
        connection.close()


@pytest.fixture(name="rows")
def rows_fixture() -> Callable[[Path], list[tuple[int, str, str]]]:
    """The function `rows`, for test modules."""
    return rows
