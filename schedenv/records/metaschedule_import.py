"""Importing a MetaSchedule database: its traces as points, its times as samples."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from schedenv import tvm_adapter
from schedenv.errors import InputError, MachineError
from schedenv.hardware import Hardware
from schedenv.measure.result import Result, Status, robust_estimate
from schedenv.records.archive import Archive
from schedenv.records.import_worker import RECORDS, WORKLOADS, Line, Request
from schedenv.records.record import Record, row_of
from schedenv.space import SPACE_VERSION, Point
from schedenv.tasks import Task

_START_LIMIT_S = 300.0
_LINE_LIMIT_S = 60.0
_MOST_DEATHS = 20
_BATCH = 500


@dataclass
class Imported:
    """What became of a database's lines.

    Attributes:
        added: Records stored.
        duplicates: Records that the store had already.
        left_out: Lines that were not imported, with kind and reason, in the order of the file.
    """

    added: int = 0
    duplicates: int = 0
    left_out: list[Line] = field(default_factory=list)


def import_database(directory: Path, task: Task, hardware: Hardware, target: Archive) -> Imported:
    """Store the records of a MetaSchedule database that are points of a task's space.

    A record's times become its samples; its conditions say that it was imported: it was neither
    verified nor timed by schedenv. The lines are parsed in a process of their own, for TVM may
    abort on a bad one; such a line is left out, and reading goes on behind it.

    Args:
        directory: Holds `database_workload.json` and `database_tuning_record.json`.
        task: What the records must be of; those of other programs are left out.
        hardware: What their target must be for.
        target: Where they go.

    Raises:
        InputError: The directory holds no database.
        MachineError: The reading process does not start, or dies of too many lines.
        StoreError: The records cannot be stored.
    """
    for name in (WORKLOADS, RECORDS):
        if not (directory / name).is_file():
            raise InputError(
                f"{directory} holds no MetaSchedule database: expected {WORKLOADS} and {RECORDS}"
            )
    report = Imported()
    known = target.digests()
    rows = []
    for line in read_lines(directory, task, hardware):
        if line.point is None or line.canonical is None:
            report.left_out.append(line)
            continue
        row = row_of(_record(line, line.point, line.canonical, task, hardware, directory))
        if row["digest"] in known:
            report.duplicates += 1
            continue
        known.add(row["digest"])
        rows.append(row)
    for start in range(0, len(rows), _BATCH):
        target.add(rows[start : start + _BATCH])
    report.added = len(rows)
    return report


def _record(
    line: Line, point: str, canonical: str, task: Task, hardware: Hardware, directory: Path
) -> Record:
    result = Result(
        point=Point.parse(point),
        status=Status.OK,
        samples_s=line.samples_s,
        estimate_s=robust_estimate(line.samples_s),
        program=canonical,
    )
    conditions = {
        "imported": "metaschedule",
        "database": directory.name,
        "line": line.number,
        "threads": hardware.cores,
    }
    return Record(
        task.content_hash, task.name, hardware.fingerprint, canonical, result, 0.0,
        space_version=SPACE_VERSION, conditions=conditions,
    )  # fmt: skip


def read_lines(directory: Path, task: Task, hardware: Hardware) -> Iterator[Line]:
    """Every line that is not blank, read by as many processes as die of one."""
    first, deaths = 1, 0
    module_json = tvm_adapter.module_to_json(task.mod)
    while True:
        request = Request(module_json, hardware, str(directory.absolute()), first)
        ended: str | None = None
        with _worker(request) as worker:
            for answer in _answers(worker):
                if isinstance(answer, str):
                    ended = answer
                    break
                yield answer
                first = answer.number + 1
        if ended is None:
            return
        deaths += 1
        if deaths > _MOST_DEATHS:
            raise MachineError(
                f"{deaths} lines of {directory / RECORDS} killed the process that read them, the "
                f"last one {first} ({ended}); this is no database that can be imported"
            )
        yield Line(first, reason=f"reading it {ended}", kind="corrupt")
        first += 1


def _answers(worker: subprocess.Popen[bytes]) -> Iterator[Line | str]:
    """The worker's lines; at the end nothing if it is done, else what ended it, in words.

    Raises:
        MachineError: It did not even start.
    """
    assert worker.stdout is not None
    started = False
    limit_s = _START_LIMIT_S
    while True:
        with _deadline(worker, limit_s) as expired:
            raw = worker.stdout.readline()
        if raw == b"done\n":
            return
        if raw == b"ready\n":
            started, limit_s = True, _LINE_LIMIT_S
        elif raw.endswith(b"\n"):
            yield msgspec.json.decode(raw, type=Line)
        else:
            ended = f"took more than {limit_s:g} s" if expired() else _death(worker)
            if not started:
                raise MachineError(
                    f"the process that reads databases did not start: it {ended}; "
                    "check the installation with: schedenv doctor"
                )
            yield ended
            return


@contextlib.contextmanager
def _deadline(worker: subprocess.Popen[bytes], limit_s: float) -> Iterator[Callable[[], bool]]:
    """Kill the worker if the block takes longer; the value says whether that happened."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        worker.kill()

    timer = threading.Timer(limit_s, expire)
    timer.start()
    try:
        yield expired.is_set
    finally:
        timer.cancel()


def _death(worker: subprocess.Popen[bytes]) -> str:
    code = worker.wait()
    if code < 0:
        return f"killed the process ({signal.Signals(-code).name})"
    return f"ended the process (exit code {code})"


@contextlib.contextmanager
def _worker(request: Request) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryDirectory(prefix="schedenv-import-") as folder:
        path = Path(folder) / "request.json"
        path.write_bytes(msgspec.json.encode(request))
        command = [sys.executable, "-m", "schedenv.records.import_worker", str(path)]
        # What TVM says of a bad line runs to pages; the kind of death is what counts.
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as worker:
            try:
                yield worker
            finally:
                worker.kill()
