"""The process that compiles, verifies and times candidates: `python -m schedenv.measure.worker`.

It holds no policy. Deadlines, respawning and scheduling are the parent's; whatever a candidate
does to this process (hang, crash, exhaust memory), the parent sees and survives.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.errors import ConstraintError, IllegalPointError
from schedenv.fma import reference_kernel
from schedenv.measure import messages, timing
from schedenv.measure.result import Phases, Status
from schedenv.measure.verify import VerificationData, deviation
from schedenv.space import UNTUNED, Space

_PR_SET_PDEATHSIG = 1


class Worker:
    """Builds and runs the candidates of one task."""

    def __init__(self, setup: messages.Setup) -> None:
        self._mod = tvm_adapter.module_from_json(setup.module_json)
        self._target = hw.target(setup.hardware)
        self._space = Space(self._mod, setup.hardware)
        self._arguments = tvm_adapter.arguments(self._mod)
        self._data = VerificationData(Path(setup.data_dir))
        self._reference = reference_kernel(setup.hardware)
        self._undisturbed_s = setup.undisturbed_s
        self._jobs: dict[int, Any] = {}
        self._tensors = [self._allocate(inputs) for inputs, _ in self._data.sets]

    def handle(self, request: messages.Request) -> messages.Response:
        """Serve one request."""
        match request:
            case messages.Build():
                return self._build(request)
            case messages.Run():
                return self._run(request)
            case messages.LookAgain():
                start = time.perf_counter()
                look = self._timer(request.job).look(request.call_s)
                return messages.Looked(request.job, look, time.perf_counter() - start)
            case messages.Sample():
                return messages.Sampled(request.job, self._time(request.job, request.number))
            case messages.Drop():
                self._jobs.clear()
                return messages.Ready()

    def _build(self, request: messages.Build) -> messages.Built:
        program: str | None = None
        spent: dict[str, float] = {}
        start = time.perf_counter()

        def answer(status: Status, reason: str | None = None) -> messages.Built:
            return messages.Built(request.job, status, reason, program, Phases(**spent))

        try:
            point = request.point
            mod = self._mod if point == UNTUNED else self._space.apply(point).mod
            program = tvm_adapter.structural_hash(mod)
        except (ConstraintError, IllegalPointError) as error:
            spent["apply_s"] = time.perf_counter() - start
            return answer(Status.CONSTRAINT, str(error))
        spent["apply_s"] = time.perf_counter() - start
        try:
            library = tvm_adapter.build(mod, self._target)
            spent["build_s"] = time.perf_counter() - start - spent["apply_s"]
            # Looking the function up makes LLVM emit the machine code.
            library["main"]
            spent["jit_s"] = time.perf_counter() - start - spent["apply_s"] - spent["build_s"]
        except MemoryError:
            return answer(Status.BUILD_ERROR, "out of memory")
        except Exception as error:
            return answer(Status.BUILD_ERROR, tvm_adapter.first_line(error))
        self._jobs[request.job] = library
        return answer(Status.OK)

    def _run(self, request: messages.Run) -> messages.Ran:
        library = self._jobs[request.job]
        start = time.perf_counter()
        try:
            error, first_call_s = self._verify(library, request.job)
            verify_s = time.perf_counter() - start
            if error > 1.0:
                return messages.Ran(
                    request.job,
                    Status.WRONG_RESULT,
                    f"the output deviates {error:.3g} times more than tolerated",
                    max_error=error if np.isfinite(error) else None,
                    verify_s=verify_s,
                )
            look = self._timer(request.job).first_look(first_call_s, request.incumbent_s)
        except Exception as failure:
            return messages.Ran(request.job, Status.RUN_ERROR, tvm_adapter.first_line(failure))
        run_s = time.perf_counter() - start - verify_s
        status, reason = Status.OK, None
        if not all(np.isfinite(look.samples_s)) or min(look.samples_s) <= 0:
            status, reason = Status.NOISY, f"the clock returned {min(look.samples_s)} s"
        return messages.Ran(request.job, status, reason, look, error, verify_s, run_s)

    def _verify(self, library: Any, job: int) -> tuple[float, float]:
        """Run once on poisoned outputs.

        Returns:
            The deviation from the reference, 1 being tolerated, and the seconds of the call.
        """
        tensors = self._set(job)
        outputs = [
            tensor
            for tensor, argument in zip(tensors, self._arguments, strict=True)
            if argument.is_output
        ]
        for tensor in outputs:
            tensor.copyfrom(np.full(tensor.shape, np.nan, dtype=tensor.dtype))
        kernel = library["main"]
        start = time.perf_counter()
        kernel(*tensors)
        call_s = time.perf_counter() - start
        _, expected = self._data.sets[job % len(self._data.sets)]
        actual = [tensor.numpy() for tensor in outputs]
        return deviation(actual, expected, self._data.tolerated), call_s

    def _timer(self, job: int) -> timing.Timer:
        return timing.Timer(
            lambda number: self._time(job, number), self._reference.time_s, self._undisturbed_s
        )

    def _time(self, job: int, number: int) -> float:
        """Mean seconds of `number` calls, after one that is not counted."""
        import tvm

        library = self._jobs[job]
        evaluator = library.time_evaluator("main", tvm.cpu(), number=number, repeat=1)
        return float(evaluator(*self._set(job)).results[0])

    def _set(self, job: int) -> list[Any]:
        return self._tensors[job % len(self._tensors)]

    def _allocate(self, inputs: list[Any]) -> list[Any]:
        import tvm

        remaining = iter(inputs)
        return [
            tvm.runtime.tensor(
                np.zeros(argument.shape, argument.dtype) if argument.is_output else next(remaining)
            )
            for argument in self._arguments
        ]


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(limit_bytes: int | None) -> None:
    if limit_bytes is not None:
        # The soft limit alone: enough for a candidate, and raising it again stays possible.
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))


def main() -> None:
    """Serve requests from the connection whose descriptor is the first argument."""
    die_with_parent()
    # The terminal's Ctrl-C is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            setup = msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=messages.Setup)
            worker = Worker(setup)
            _limit_memory(setup.memory_limit_bytes)
        except Exception as error:
            reason = f"{type(error).__name__}: {tvm_adapter.first_line(error)}"
            connection.send_bytes(messages.encode(messages.Failed(reason)))
            return
        connection.send_bytes(messages.encode(messages.Ready()))
        while True:
            request = messages.decode_request(connection.recv_bytes())
            connection.send_bytes(messages.encode(worker.handle(request)))


if __name__ == "__main__":
    main()
    # TVM's thread pool may wait for ever in its destructor; nothing is left to be saved.
    os._exit(0)
