"""A PostgreSQL server of its own, for the tests: a temporary cluster on a unix socket."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

MISSING = "PostgreSQL is not installed; on Debian: apt-get install postgresql"


def program(name: str) -> str | None:
    """Where a server program is; Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


class Server:
    """A running server; `url` leads to a database of it."""

    def __init__(self, folder: Path, owner: dict[str, Any]) -> None:
        self.folder, self._owner = folder, owner
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={quote(str(self.folder), safe='')}"

    def new_database(self, name: str) -> str:
        """Create a database; its URL."""
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> None:
        import psycopg

        where = f"postgresql://postgres@/{database}?host={self.folder}"
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(statement)

    def start(self, limit_s: float = 60) -> None:
        """Start the server and wait until it answers."""
        import psycopg

        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(program("postgres")), "-D", str(self.folder / "data"),
                    "-k", str(self.folder), "-c", "listen_addresses=", "-c", "fsync=off",
                ],
                stdout=log, stderr=log, cwd=self.folder, **self._owner,
            )  # fmt: skip
        end_s = time.monotonic() + limit_s
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > end_s:
                    pytest.fail("the server did not start: " + (self.folder / "log").read_text())
                time.sleep(0.1)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Shut the server down (SIGINT: at once, but in order)."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)


@contextmanager
def running_server() -> Iterator[Server]:
    """A server until the block ends; skips the test where none is installed."""
    initdb = program("initdb")
    if initdb is None or program("postgres") is None:
        pytest.skip(MISSING)
    pytest.importorskip("psycopg", reason="pip install 'schedenv[postgres]'")
    # Unix sockets have short names, so not below pytest's folder.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder, owner = Path(name), _owner()
        if owner:
            os.chown(folder, owner["user"], owner["group"])
        done = subprocess.run(
            [initdb, "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8",
             "--locale=C", "--no-sync"],
            capture_output=True, text=True, check=False, cwd=folder, timeout=120, **owner,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        server = Server(folder, owner)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _owner() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: whom to run it as."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL does not run as root, and there is no other user")
