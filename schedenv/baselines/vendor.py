"""Reference lines: what ONNX Runtime and torch need for a task, timed between its finalists.

A vendor's kernel is no contestant: it was not found by a search, and nothing says how long it took
to make. It is a line in the picture. It is verified as candidates are, it runs in a process of its
own, on as many threads, and takes turns with the finalists, with a pause on both sides of every
sample, for the libraries' threads go on spinning after a call.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from schedenv import hardware as hw
from schedenv.baselines import vendor_server as server
from schedenv.baselines.vendor_kernels import FAMILIES, LIBRARIES
from schedenv.errors import MachineError, MissingExtraError
from schedenv.hardware import Hardware
from schedenv.measure import reference
from schedenv.measure.local import LocalMeasurer
from schedenv.measure.process import describe_end, kill_tree
from schedenv.measure.result import Result, Status
from schedenv.measure.scratch import make_scratch
from schedenv.measure.turns import MachineTurns
from schedenv.space import UNTUNED, Point
from schedenv.tasks import Task
from schedenv.tuning.finalists import ROUNDS, Kernel, Timing, interleave

PAUSE_S = 0.05
_BURST_S = 0.01
_KERNEL_S = 3.0
_START_LIMIT_S = 120.0
_SAMPLE_LIMIT_S = 60.0


@dataclass(frozen=True)
class VendorLines:
    """Vendors' kernels and a task's finalists, timed in turn.

    Attributes:
        lines: Each vendor's time, by the library's name and version.
        absent: Why a library has no line, by its name.
        finalists: The finalists' times, in the order given; those that failed are left out.
    """

    lines: dict[str, Timing]
    absent: dict[str, str]
    finalists: dict[Point, Timing]


def vendor_lines(
    task: Task, hardware: Hardware, finalists: Sequence[Point] = (), seed: int = 0
) -> VendorLines:
    """Time the vendors' kernels for a task, interleaved with its finalists.

    Args:
        task: What they compute.
        hardware: This machine.
        finalists: Points to time with them.
        seed: Of the order; the inputs have another one.

    Raises:
        MissingExtraError: None of the libraries is installed.
        MachineError: The reference cannot be computed.
    """
    installed = [name for name in LIBRARIES if importlib.util.find_spec(name) is not None]
    if not installed:
        raise MissingExtraError("onnxruntime", "vendor", "timing vendors' kernels")
    absent = {name: "it is not installed" for name in LIBRARIES if name not in installed}
    reason = _explain_unsuitable(task)
    if reason is not None:
        return VendorLines({}, {**absent, **dict.fromkeys(installed, reason)}, {})
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch())
        reference.prepare(task, scratch, hardware, seed + 1)
        vendors: dict[str, _Vendor] = {}
        for library in installed:
            try:
                vendor = stack.enter_context(_Vendor(library, task, hardware, scratch))
            except MachineError as error:
                absent[library] = str(error)
            else:
                vendors[f"{library} {vendor.version}"] = vendor
        kernels: list[Kernel] = list(vendors.values())
        slowdown: Callable[[], float | None] | None = None
        if finalists:
            measurer = stack.enter_context(LocalMeasurer(task, hardware, workers=1, seed=seed + 1))
            kernels += measurer.load(finalists)
            slowdown = measurer.slowdown
        timed = interleave(kernels, ROUNDS, _KERNEL_S * len(kernels), seed, slowdown)
    timings = [Timing.of(samples, seed) if samples else None for _, samples in timed]
    ours = zip(finalists, timings[len(vendors) :], strict=True)
    theirs = zip(vendors, timings, strict=False)
    return VendorLines(
        {name: timing for name, timing in theirs if timing is not None},
        absent,
        {point: timing for point, timing in ours if timing is not None},
    )


def _explain_unsuitable(task: Task) -> str | None:
    """Why no library has a kernel for a task; None if they have."""
    if task.family not in FAMILIES:
        return f"no library has a kernel for {task.family}"
    dtypes = {argument.dtype for argument in task.arguments}
    if dtypes != {"float32"}:
        return f"vendors' kernels are timed in float32, the task is in {', '.join(sorted(dtypes))}"
    return None


class _Vendor:
    """A library's process; a `Kernel` for `interleave`."""

    def __init__(self, library: str, task: Task, hardware: Hardware, scratch: Path) -> None:
        self._library = library
        self._turns = MachineTurns()
        self._log = scratch / f"{library}.log"
        _, _, shape = task.spec.partition(":")
        request = server.Request(library, task.family, shape, str(scratch), hardware.cores)
        request_file = scratch / f"{library}.json"
        request_file.write_bytes(msgspec.json.encode(request))
        environment = {**os.environ, **hw.kernel_environment(hardware)}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(hardware.cores))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", server.__name__, str(request_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        try:
            ready = msgspec.json.decode(self._answer(_START_LIMIT_S), type=server.Ready)
            if not ready.max_error <= 1.0:
                raise MachineError(
                    f"{library} deviates from the reference of {task.name} by {ready.max_error:.3g}"
                    " times what is tolerated"
                )
        except BaseException:
            self.close()
            raise
        self.version = ready.version
        self._calls = max(1, round(_BURST_S / ready.call_s))
        # It is no point of any space; nobody looks at which.
        self.result = Result(
            point=UNTUNED, status=Status.OK, estimate_s=ready.call_s, max_error=ready.max_error
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sample_s(self) -> float:
        """Take one more sample, seconds a call."""
        assert self._process.stdin is not None
        with self._turns.timing():
            time.sleep(PAUSE_S)
            self._process.stdin.write(b"%d\n" % self._calls)
            self._process.stdin.flush()
            sample_s = float(self._answer(_SAMPLE_LIMIT_S))
            time.sleep(PAUSE_S)
        return sample_s

    def close(self) -> None:
        """End the process."""
        kill_tree(self._process.pid)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._turns.close()

    def _answer(self, limit_s: float) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], limit_s)
        line: bytes = self._process.stdout.readline() if ready else b""
        if not line:
            code = None if not ready else self._process.wait()
            raise MachineError(f"the process of {self._library} {describe_end(code, self._log)}")
        return line


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    path = make_scratch()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
