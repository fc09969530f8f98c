"""Workers in milliseconds: forked from a process that has imported and set up everything.

A fresh interpreter that imports TVM and prepares a task takes seconds, and every candidate that
hangs or crashes costs one worker. So one process, the nursery, does it once and never runs a
kernel: no thread pool exists yet in it, which is what makes forking it safe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import msgspec

from schedenv.measure.process import Spawn, StartFailedError, describe_end

WORKER_MODULE = "schedenv.measure.worker"

_REPLY_TIMEOUT_S = 30.0
_POLL_S = 0.005
_LONGEST_BYTES = 4096


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Fork a worker; its connection and its standard error come with this as descriptors.

    Attributes:
        setup_file: JSON of `messages.Setup`, for a worker that sets itself up after the fork; None
            for the one that the nursery has set up.
    """

    setup_file: str | None = None


class Wait(msgspec.Struct, frozen=True, tag=True):
    """Reap a worker if it has ended."""

    pid: int


class Forked(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Fork`."""

    pid: int


class Waited(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Wait`: exit code, negative for a signal; None while it runs."""

    code: int | None


class Grown(msgspec.Struct, frozen=True, tag=True):
    """The nursery is ready, or says why it will never be."""

    problem: str | None = None


Order = Fork | Wait
encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
_decode_answer = msgspec.msgpack.Decoder(Forked | Waited | Grown).decode


class ForkedProcess:
    """A worker forked by the nursery, with what `subprocess.Popen` offers of it.

    Attributes:
        pid: Its process id.
        returncode: Exit code, negative for a signal; None as long as it is not known.
    """

    def __init__(self, pid: int, nursery: Nursery) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        if self.returncode is None:
            self.returncode = self._nursery.exit_code(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        end_s = time.monotonic() + (_REPLY_TIMEOUT_S if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() >= end_s:
                raise subprocess.TimeoutExpired("worker", timeout or _REPLY_TIMEOUT_S)
            time.sleep(_POLL_S)
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL, unless it is known to have ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Nursery:
    """The process that workers are forked from; started when the first is asked for.

    Args:
        setup_file: JSON of `messages.Setup`; None for a nursery of workers of several tasks, which
            imports TVM alone, see `spawn_for`.
        scratch_dir: Where its standard error goes.
        environment: Variables set on top of this process's own.
        start_timeout_s: How long it may take to set itself up.
    """

    def __init__(
        self,
        setup_file: Path | None,
        scratch_dir: Path,
        environment: Mapping[str, str],
        start_timeout_s: float,
    ) -> None:
        self._setup_file, self._environment = setup_file, environment
        self._stderr_file = scratch_dir / "nursery.stderr"
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def spawn(self) -> Spawn:
        """How a `WorkerProcess` of this nursery is started."""
        return self.spawn_for(None)

    def spawn_for(self, setup_file: Path | None) -> Spawn:
        """How a worker that sets itself up by a file of its own is started."""
        fork = Fork(None if setup_file is None else str(setup_file))

        def spawn(connection_fd: int, stderr_fd: int) -> ForkedProcess:
            if self._control is None:
                self._start()
            answer = self._ask(fork, [connection_fd, stderr_fd])
            assert isinstance(answer, Forked)
            return ForkedProcess(answer.pid, self)

        return spawn

    def exit_code(self, pid: int) -> int | None:
        """How a worker ended; None while it runs. One whose nursery is dead was killed with it."""
        try:
            answer = self._ask(Wait(pid))
        except StartFailedError:
            return -signal.SIGKILL
        assert isinstance(answer, Waited)
        return answer.code

    def close(self) -> None:
        """Kill the nursery; its workers die with it. A second call does nothing."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = self._control = None

    def _start(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its, self._stderr_file.open("wb") as stderr:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    WORKER_MODULE,
                    str(its.fileno()),
                    str(self._setup_file or ""),
                ],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env={**os.environ, **self._environment},
                pass_fds=[its.fileno()],
                start_new_session=True,
            )
        self._control = ours
        ours.settimeout(self._start_timeout_s)
        grown = self._receive()
        if not isinstance(grown, Grown) or grown.problem is not None:
            self.close()
            raise StartFailedError(grown.problem if isinstance(grown, Grown) else str(grown))
        ours.settimeout(_REPLY_TIMEOUT_S)

    def _ask(self, order: Order, descriptors: list[int] | None = None) -> Forked | Waited | Grown:
        if self._control is None:
            raise StartFailedError("the process that workers are forked from is gone")
        try:
            socket.send_fds(self._control, [encode(order)], descriptors or [])
        except OSError:
            self._give_up()
        return self._receive()

    def _receive(self) -> Forked | Waited | Grown:
        assert self._control is not None
        try:
            packet = self._control.recv(_LONGEST_BYTES)
        except OSError:
            packet = b""
        if not packet:
            self._give_up()
        answer: Forked | Waited | Grown = _decode_answer(packet)
        return answer

    def _give_up(self) -> NoReturn:
        """Explain a nursery that does not answer, and make room for another."""
        code = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(1.0)
        self.close()
        raise StartFailedError(describe_end(code, self._stderr_file))
