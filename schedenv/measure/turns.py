"""One timed run a machine: processes that share it may build together, never beside a timing.

Two locked files make a readers-writer lock that the kernel releases however its holder dies. The
second, the gate, keeps new builders out while somebody waits to time; otherwise the builders of
other processes, taking turns, could keep the machine busy for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE_S = 120.0
"""A holder that does not let go for this long is stopped, not working; nothing runs beside it."""

_POLL_S = 0.005


class MachineTurns:
    """Takes turns with every other process on this machine that measures.

    Args:
        directory: Where the lock files are; None for the system's temporary directory. Where they
            cannot be opened (they belong to another user), turns are not taken.
        patience_s: How long to wait for others before going on regardless.
    """

    def __init__(self, directory: Path | None = None, patience_s: float = PATIENCE_S) -> None:
        directory = directory or Path(tempfile.gettempdir())
        self._patience_s = patience_s
        self._files: list[int] = []
        with contextlib.suppress(OSError):
            for name in ("schedenv-gate.lock", "schedenv-machine.lock"):
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._files.append(os.open(directory / name, flags, 0o666))

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """While others may build, but nobody times."""
        with self._holding(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """While nobody else builds or times."""
        with self._holding(fcntl.LOCK_EX):
            yield

    def close(self) -> None:
        """Release the files; a second call does nothing."""
        while self._files:
            os.close(self._files.pop())

    @contextlib.contextmanager
    def _holding(self, kind: int) -> Iterator[None]:
        if len(self._files) < 2:
            yield
            return
        gate, machine = self._files
        end_s = time.monotonic() + self._patience_s
        _lock(gate, kind, end_s)
        try:
            _lock(machine, kind, end_s)
        finally:
            fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(machine, fcntl.LOCK_UN)


def _lock(file: int, kind: int, end_s: float) -> None:
    """Lock a file, or give up at `end_s`."""
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= end_s:
                return
            time.sleep(_POLL_S)
        else:
            return
