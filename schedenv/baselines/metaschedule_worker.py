"""Runs TVM's tuner in a process that its bugs may kill: `python -m ... REQUEST`.

Every message is a line of JSON on standard output. The parent holds the other end of standard
input open: when it dies, however it dies, this process kills its whole group, TVM's builders and
runners included.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from schedenv import hardware as hw
from schedenv import tvm_adapter, tvm_tuning
from schedenv.hardware import Hardware


class Request(msgspec.Struct, frozen=True):
    """What to tune.

    Attributes:
        module_json: The module.
        hardware: The machine.
        tuner: The search's settings.
        directory: Where the database goes; exists and is empty.
        trials: Candidates; None for no limit.
        seconds: Seconds after which nothing more is run; None for no limit.
        seed: Of the search.
    """

    module_json: str
    hardware: Hardware
    tuner: tvm_tuning.Tuner
    directory: str
    trials: int | None
    seconds: float | None
    seed: int


class Started(msgspec.Struct, frozen=True, tag=True):
    """The tuner's processes run; seconds are counted from here."""


class Building(msgspec.Struct, frozen=True, tag=True):
    """So many candidates are being built."""

    count: int


class Running(msgspec.Struct, frozen=True, tag=True):
    """So many candidates were built and are being run."""

    count: int


class Tried(msgspec.Struct, frozen=True, tag=True):
    """A candidate has failed, or was timed.

    Attributes:
        elapsed_s: Seconds since the start.
        status: How it ended.
        seconds: MetaSchedule's times, seconds a call; empty for a failure.
    """

    elapsed_s: float
    status: tvm_tuning.Status
    seconds: tuple[float, ...]


class Committed(msgspec.Struct, frozen=True, tag=True):
    """The database holds what was run."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The search has ended by itself or with its budget."""

    elapsed_s: float


Message = Started | Building | Running | Tried | Committed | Done
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Message).decode


def _die_with_parent() -> None:
    """Wait for the end of standard input, which is that of the parent."""
    while os.read(0, 1 << 10):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Tune, and say what happens."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    # TVM prints to standard output too.
    os.dup2(2, 1)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    request = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Request)
    started_s = time.monotonic()

    def send(message: Message) -> None:
        answers.write(encode(message) + b"\n")

    def elapsed_s() -> float:
        return time.monotonic() - started_s

    def start() -> None:
        nonlocal started_s
        started_s = time.monotonic()
        send(Started())

    def expired(share: float) -> bool:
        return request.seconds is not None and elapsed_s() >= share * request.seconds

    listener = tvm_tuning.Listener(
        started=start,
        building=lambda count: send(Building(count)),
        running=lambda count: send(Running(count)),
        tried=lambda status, seconds: send(Tried(elapsed_s(), status, seconds)),
        committed=lambda: send(Committed()),
        expired=expired,
    )
    tvm_tuning.tune(
        tvm_adapter.module_from_json(request.module_json),
        hw.target(request.hardware),
        request.tuner,
        request.directory,
        request.trials,
        request.seed,
        listener,
    )
    send(Done(elapsed_s()))
    answers.close()
    # TVM's pools take their time to shut down; there is nothing left to save.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
