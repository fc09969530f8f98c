"""Reads a MetaSchedule database line by line, in a process that a bad line may kill.

TVM aborts on lines that it cannot parse, so the parent watches, and starts another one behind the
line that did it. Run as `python -m schedenv.records.import_worker REQUEST`.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from schedenv import tvm_adapter, tvm_database
from schedenv.errors import ConstraintError, IllegalPointError
from schedenv.hardware import Hardware
from schedenv.records.traces import NotExpressibleError, TraceReader
from schedenv.space import Point, Space

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"
MAX_LINE_BYTES = 4 << 20

_MEMORY_BYTES = 8 << 30
# MetaSchedule stores 1e10 seconds for a candidate that failed.
_FAILED_S = 1e9


class Request(msgspec.Struct, frozen=True):
    """What to read.

    Attributes:
        module_json: The task's module.
        hardware: The machine that the records must be of.
        directory: The database.
        first_line: Lines before this one, counted from 1, are done.
    """

    module_json: str
    hardware: Hardware
    directory: str
    first_line: int


class Line(msgspec.Struct, frozen=True):
    """What a line of the database holds.

    Attributes:
        number: Counted from 1.
        point: The point; None if the line is not imported.
        canonical: Canonical form of the point; None if the line is not imported.
        samples_s: MetaSchedule's timings, seconds a call.
        reason: Why it is not imported; None if it is.
        kind: `ok`; `other` (of another program or target), `failed` (a failed candidate),
            `outside` (not a point of the space) or `corrupt`.
    """

    number: int
    point: str | None = None
    canonical: str | None = None
    samples_s: tuple[float, ...] = ()
    reason: str | None = None
    kind: str = "ok"


class _SkippedError(Exception):
    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class _Reader:
    def __init__(self, request: Request) -> None:
        self._mod = tvm_adapter.module_from_json(request.module_json)
        self._space = Space(self._mod, request.hardware)
        self._traces = TraceReader(self._space)
        self._hardware = request.hardware
        self._workloads = Path(request.directory) / WORKLOADS
        self._same: dict[int, bool] = {}
        self._hashes = {tvm_adapter.structural_hash(mod) for mod in (self._mod, self._space.mod)}

    def read(self, number: int, raw: bytes) -> Line:
        try:
            return self._read(number, _parse(raw))
        except _SkippedError as skipped:
            return Line(number, reason=str(skipped), kind=skipped.kind)
        except (NotExpressibleError, ConstraintError, IllegalPointError) as error:
            return Line(number, reason=str(error), kind="outside")
        except RecursionError:
            return Line(number, reason="it is nested too deeply", kind="corrupt")

    def _read(self, number: int, content: Any) -> Line:
        try:
            workload, (trace, run_secs, target, _) = content
        except (TypeError, ValueError):
            raise _SkippedError("corrupt", "it is not [workload, [trace, times, ...]]") from None
        if not self._is_ours(workload):
            raise _SkippedError("other", "it is of another program")
        self._check_target(target)
        samples_s = _samples(run_secs)
        point, canonical = self._point(trace)
        return Line(number, str(point), canonical, samples_s)

    def _point(self, trace: Any) -> tuple[Point, str]:
        """The point whose program a trace makes, and the program's canonical form."""
        if self._traces.is_untidy(trace):
            _, trace = tvm_database.apply_trace_json(self._mod, trace)
        foreign: NotExpressibleError | None = None
        try:
            points = [self._traces.point(trace)]
        except NotExpressibleError as error:
            foreign, points = error, self._traces.relatives(trace)
            if not points:
                raise
        applied, _ = tvm_database.apply_trace_json(self._mod, trace)
        program = tvm_adapter.structural_hash(applied)
        for point in points:
            if self._space.canonical(point) == program:
                return point, program
        if foreign is not None:
            raise foreign
        raise _SkippedError(
            "outside", "its postprocessing makes another program of the same decisions"
        )

    def _is_ours(self, index: Any) -> bool:
        """Whether a workload of the database is the task's program."""
        if type(index) is not int or index < 0:
            raise _SkippedError("corrupt", f"expected a workload's number, got {index!r:.40}")
        if index not in self._same:
            with self._workloads.open("rb") as file:
                raw = next(itertools.islice(_lines(file), index, None), None)
            if raw is None:
                raise _SkippedError("corrupt", f"there is no workload {index}")
            try:
                mod = tvm_database.workload_from_json(_parse(raw))
            except _SkippedError:
                raise
            except Exception as error:
                first = tvm_adapter.first_line(error)
                raise _SkippedError("corrupt", f"workload {index}: {first}") from None
            self._same[index] = tvm_adapter.structural_hash(mod) in self._hashes
        return self._same[index]

    def _check_target(self, target: Any) -> None:
        """Times of another machine, or of code for another machine, are not this one's."""
        expected = {"mcpu": self._hardware.mcpu, "num-cores": self._hardware.cores}
        for key, value in expected.items():
            got = target.get(key) if isinstance(target, dict) else None
            if got != value:
                raise _SkippedError(
                    "other", f"its target's {key} is {got!r:.40}, this machine's {value!r}"
                )


def _parse(raw: bytes) -> Any:
    if len(raw) > MAX_LINE_BYTES:
        raise _SkippedError("corrupt", f"it is longer than {MAX_LINE_BYTES} bytes")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _SkippedError("corrupt", f"it is not JSON ({error})") from None


def _samples(run_secs: Any) -> tuple[float, ...]:
    if not isinstance(run_secs, list) or not run_secs:
        raise _SkippedError("failed", "it has no times")
    if not all(type(s) in {int, float} and math.isfinite(s) and s > 0 for s in run_secs):
        raise _SkippedError("corrupt", "its times are not positive numbers")
    if max(run_secs) >= _FAILED_S:
        raise _SkippedError("failed", "the candidate failed there")
    return tuple(float(s) for s in run_secs)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines, the overlong ones cut just above the limit, so that they are seen to be."""
    while raw := file.readline(MAX_LINE_BYTES + 1):
        rest = raw
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
        yield raw


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    except (ImportError, ValueError, OSError):
        return


def main() -> None:
    """Print one JSON object a line of the database."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    # TVM prints to standard output too.
    os.dup2(2, 1)
    _limit_memory()
    request = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Request)
    reader = _Reader(request)
    answers.write(b"ready\n")
    with (Path(request.directory) / RECORDS).open("rb") as file:
        for number, raw in enumerate(_lines(file), start=1):
            if number >= request.first_line and raw.strip():
                answers.write(msgspec.json.encode(reader.read(number, raw)) + b"\n")
    answers.write(b"done\n")


if __name__ == "__main__":
    main()
