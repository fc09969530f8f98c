"""A worker process as its parent sees it: start, ask, wait with a deadline, kill the whole tree."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Protocol

import psutil

from schedenv.measure import messages

_serial = itertools.count()

_STDERR_TAIL_BYTES = 2000


class StartFailedError(Exception):
    """A worker could not even be started; the text says why."""


class Process(Protocol):
    """What a `WorkerProcess` needs to know of the operating system's process."""

    @property
    def pid(self) -> int:
        """Its id."""
        ...

    returncode: int | None

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


Spawn = Callable[[int, int], Process]
"""Starts a worker, given the descriptors of its connection and of its standard error."""


def fresh_interpreter(module: str, setup_file: Path, environment: Mapping[str, str]) -> Spawn:
    """Start workers as interpreters of their own: `python -m module CONNECTION SETUP`.

    Args:
        module: What they run.
        setup_file: What they need to know.
        environment: Variables set on top of this process's own.
    """

    def spawn(connection_fd: int, stderr_fd: int) -> Process:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(connection_fd), str(setup_file)],
            stdin=subprocess.DEVNULL,
            stdout=stderr_fd,
            stderr=stderr_fd,
            env={**os.environ, **environment},
            pass_fds=[connection_fd],
            start_new_session=True,
        )

    return spawn


class WorkerProcess:
    """One worker process.

    Args:
        spawn: How it is started.
        scratch_dir: Where its standard error goes.
        start_timeout_s: Deadline for its first message, `Ready`.

    Attributes:
        busy: Whether an answer is due.
        builds: How many builds it was asked for, for recycling.
        deadline_s: Monotonic time at which the current answer is overdue.
    """

    def __init__(self, spawn: Spawn, scratch_dir: Path, start_timeout_s: float) -> None:
        self._stderr_file = scratch_dir / f"worker-{next(_serial)}.stderr"
        self.connection, child = Pipe()
        try:
            with self._stderr_file.open("wb") as stderr:
                self._process = spawn(child.fileno(), stderr.fileno())
        except BaseException:
            self.connection.close()
            self._stderr_file.unlink(missing_ok=True)
            raise
        finally:
            child.close()
        self.builds = 0
        self.busy = True
        self._asked_s = time.monotonic()
        self.deadline_s = self._asked_s + start_timeout_s

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, request: messages.DeviceRequest, timeout_s: float) -> None:
        """Send a request whose answer is due within `timeout_s`.

        A worker that is already dead is noticed when the answer is collected, not here.
        """
        self.busy = True
        self._asked_s = time.monotonic()
        self.deadline_s = self._asked_s + timeout_s
        self.builds += isinstance(request, messages.Build)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send_bytes(messages.encode(request))

    def hurry(self, timeout_s: float) -> None:
        """Make the answer due within `timeout_s` of the request, if it was due later."""
        self.deadline_s = min(self.deadline_s, self._asked_s + timeout_s)

    def collect(self) -> messages.Response | None:
        """Receive the answer that has arrived; None if the worker died instead of answering."""
        self.busy = False
        try:
            answer: messages.Response = messages.decode_response(self.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            return None
        return answer

    def kill(self) -> str:
        """Kill the worker and all its children, and reap it.

        Returns:
            How it ended: the signal that had killed it already (or its exit code), and the last
            lines that it wrote to standard error.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            # A process that died by itself needs a moment to become reapable.
            self._process.wait(0.2 if not self.busy else 0.0)
        ended_by = self._process.poll()
        kill_tree(self.pid)
        self._process.kill()
        self._process.wait()
        self.connection.close()
        ending = describe_end(ended_by, self._stderr_file)
        self._stderr_file.unlink(missing_ok=True)
        return ending

    def ended_by_signal(self, number: int) -> bool:
        """Whether the process is dead of that signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        return self._process.returncode == -number


def kill_tree(pid: int) -> None:
    """Kill the process group that a process leads, and every descendant that has left it."""
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def describe_end(code: int | None, stderr_file: Path) -> str:
    """How a process ended, and the last lines that it wrote to standard error.

    Args:
        code: Its exit code, negative for a signal; None if it was still running.
        stderr_file: What it wrote.
    """
    text = ""
    with contextlib.suppress(OSError), stderr_file.open("rb") as stderr:
        stderr.seek(max(0, stderr_file.stat().st_size - _STDERR_TAIL_BYTES))
        lines = stderr.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        # The first lines of a native backtrace and the last of a Python one are what tells.
        text = " | ".join(said if len(said) <= 8 else [*said[:4], "...", *said[-4:]])
    return f"{_describe_exit(code)}{': ' + text if text else ''}"


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "killed at its deadline"
    if code < 0:
        return f"died of {signal.Signals(-code).name}"
    return f"exited with code {code}"
