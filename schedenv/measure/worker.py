"""What compiles, verifies and times candidates; `python -m schedenv.measure.worker` forks it.

It holds no policy. Deadlines, respawning and scheduling are the parent's; whatever a candidate
does to this process (hang, crash, exhaust memory), the parent sees and survives.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import itertools
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np

from schedenv import hardware as hw
from schedenv import tvm_adapter, tvm_lowering
from schedenv.errors import ConstraintError, IllegalPointError
from schedenv.fma import reference_kernel
from schedenv.measure import messages, nursery, timing
from schedenv.measure.buffers import on_pages
from schedenv.measure.placement import Placement
from schedenv.measure.result import Phases, Status
from schedenv.measure.verify import VerificationData, deviation
from schedenv.space import UNTUNED, Space

_PR_SET_PDEATHSIG = 1

_MOST_COPIES = 256
"""Of the weights of a kernel that has few of them: they matter little."""


class Worker:
    """Builds and runs the candidates of one task."""

    def __init__(self, setup: messages.Setup) -> None:
        self._mod = tvm_adapter.module_from_json(setup.module_json)
        self._target = hw.target(setup.hardware)
        self._quick_target = hw.target(setup.hardware, quick=True)
        self._space = Space(self._mod, setup.hardware)
        self._arguments = tvm_adapter.arguments(self._mod)
        self._data = VerificationData(Path(setup.data_dir))
        self._reference = reference_kernel(setup.hardware)
        self._undisturbed_s = setup.undisturbed_s
        self._placement: Placement | None = None
        self._lowered: dict[int, tuple[tvm_lowering.Lowering, messages.Lowered]] = {}
        self._codes: dict[str, str] = {}
        self._jobs: dict[int, Any] = {}
        self._tensors = [self._allocate(inputs) for inputs, _ in self._data.sets]
        self._weights, self._span_bytes = setup.weights, setup.span_bytes

    def handle(self, request: messages.Request) -> messages.Response:
        """Serve one request."""
        if isinstance(request, messages.MeasuringRequest):
            self._stay_beside_pool()
            return self._measure(request)
        if self._placement is not None:
            self._placement.anywhere()
        match request:
            case messages.Lower():
                self._codes.update(request.learned)
                return self._lower(request)
            case messages.Build():
                return self._build(request)
            case messages.Drop():
                self._lowered.clear()
                self._jobs.clear()
                return messages.Ready()

    def _measure(self, request: messages.MeasuringRequest) -> messages.Response:
        match request:
            case messages.Run():
                return self._run(request)
            case messages.LookAgain():
                start = time.perf_counter()
                look = self._timer(request.job).look(request.call_s)
                return messages.Looked(request.job, look, time.perf_counter() - start)
            case messages.Sample():
                uncounted = timing.uncounted_samples(request.number)
                *_, sample_s = self._time(request.job, request.number, uncounted + 1)
                return messages.Sampled(request.job, sample_s)
            case messages.Probe():
                now = timing.slowdown_now(self._reference.time_s, self._undisturbed_s)
                return messages.Probed(now)

    def _stay_beside_pool(self) -> None:
        if self._placement is None:
            self._placement = Placement()
            # The first kernel on all cores makes TVM start its pool.
            self._reference.time_s()
        self._placement.beside_pool()

    def _lower(self, request: messages.Lower | messages.Build) -> messages.Lowered:
        """Apply and lower, unless that was done; what comes out waits for `Build`.

        Only as far as needed to tell the code: most neighbours of a schedule may have its code.
        """
        job, point = request.job, request.point
        if job in self._lowered:
            return self._lowered[job][1]
        program: str | None = None
        start = time.perf_counter()
        applied_s = 0.0
        try:
            mod = self._mod if point == UNTUNED else self._space.apply(point).mod
            program = tvm_adapter.structural_hash(mod)
            applied_s = time.perf_counter() - start
            lowering = tvm_lowering.Lowering(mod, self._target)
            outline = lowering.outline
            if outline not in self._codes:
                self._codes[outline] = tvm_lowering.code_hash(lowering.finished)
        except (ConstraintError, IllegalPointError) as error:
            phases = Phases(apply_s=time.perf_counter() - start)
            return messages.Lowered(job, Status.CONSTRAINT, str(error), program, None, phases)
        except Exception as error:
            phases = Phases(apply_s=applied_s, build_s=time.perf_counter() - start - applied_s)
            reason = tvm_adapter.first_line(error)
            return messages.Lowered(job, Status.BUILD_ERROR, reason, program, None, phases)
        phases = Phases(apply_s=applied_s, build_s=time.perf_counter() - start - applied_s)
        code = self._codes[outline]
        answer = messages.Lowered(job, Status.OK, None, program, code, phases, outline)
        self._lowered[job] = (lowering, answer)
        return answer

    def _build(self, request: messages.Build) -> messages.Built:
        if request.job not in self._lowered:
            failed = self._lower(request)
            if failed.status is not Status.OK:
                return messages.Built(
                    failed.job, failed.status, failed.reason, failed.program, failed.phases
                )
        lowering, lowered = self._lowered.pop(request.job)
        status, reason = Status.OK, None
        start = end = time.perf_counter()
        jit_s = 0.0
        try:
            target = self._quick_target if request.quick else self._target
            library = tvm_adapter.generate_code(lowering.finished, target)
            end = time.perf_counter()
            # Looking the function up makes LLVM emit the machine code.
            library["main"]
            jit_s = time.perf_counter() - end
            self._jobs[request.job] = library
        except MemoryError:
            status, reason = Status.BUILD_ERROR, "out of memory"
        except Exception as error:
            status, reason = Status.BUILD_ERROR, tvm_adapter.first_line(error)
        phases = msgspec.structs.replace(
            lowered.phases, build_s=lowered.phases.build_s + end - start, jit_s=jit_s
        )
        return messages.Built(request.job, status, reason, lowered.program, phases)

    def _run(self, request: messages.Run) -> messages.Ran:
        start = time.perf_counter()
        try:
            error, first_call_s = self._verify(request.job)
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
        return messages.Ran(request.job, Status.OK, None, look, error, verify_s, run_s)

    def _verify(self, job: int) -> tuple[float, float]:
        """Run once on poisoned outputs.

        Returns:
            The deviation from the reference, 1 being tolerated, and the seconds of the call.
        """
        tensors = self._tensors[job % len(self._tensors)]
        outputs = [
            tensor
            for tensor, argument in zip(tensors, self._arguments, strict=True)
            if argument.is_output
        ]
        for tensor in outputs:
            tensor.copyfrom(np.full(tensor.shape, np.nan, dtype=tensor.dtype))
        call_s = self._call(job, tensors)
        _, expected = self._data.sets[job % len(self._data.sets)]
        actual = [tensor.numpy() for tensor in outputs]
        return deviation(actual, expected, self._data.tolerated), call_s

    def _timer(self, job: int) -> timing.Timer:
        return timing.Timer(
            lambda: self._call(job, next(self._sets)),
            lambda number, count: self._time(job, number, count),
            self._reference.time_s,
            self._undisturbed_s,
        )

    def _call(self, job: int, tensors: list[Any]) -> float:
        """Seconds of one call."""
        kernel = self._jobs[job]["main"]
        start = time.perf_counter()
        kernel(*tensors)
        return time.perf_counter() - start

    def _time(self, job: int, number: int, count: int) -> list[float]:
        """Samples, each the mean seconds of `number` calls, after one call that is not counted.

        All kernels run on the same buffers, a network's weights apart: they are compared with
        each other.
        """
        import tvm

        if not self._weights:
            evaluator = self._jobs[job].time_evaluator(
                "main", tvm.cpu(), number=number, repeat=count
            )
            return [float(sample_s) for sample_s in evaluator(*self._tensors[0]).results]
        kernel = self._jobs[job]["main"]
        kernel(*next(self._sets))
        samples_s = []
        for _ in range(count):
            start = time.perf_counter()
            for tensors in itertools.islice(self._sets, number):
                kernel(*tensors)
            samples_s.append((time.perf_counter() - start) / number)
        return samples_s

    @functools.cached_property
    def _sets(self) -> Iterator[list[Any]]:
        """The arguments of one call after the other, round and round.

        The weights of a network are read once an inference, and by then the caches hold others.
        What reads them fastest from there is not what does when they have stayed.
        """
        import tvm

        arguments = self._tensors[0]
        sets, size = [arguments], sum(arguments[index].numpy().nbytes for index in self._weights)
        for _ in range(min(_MOST_COPIES, self._span_bytes // max(size, 1)) - 1):
            copies = on_pages([arguments[index].numpy() for index in self._weights])
            fresh = dict(zip(self._weights, map(tvm.runtime.from_dlpack, copies), strict=True))
            sets.append([fresh.get(index, tensor) for index, tensor in enumerate(arguments)])
        return itertools.cycle(sets)

    def _allocate(self, inputs: list[Any]) -> list[Any]:
        import tvm

        remaining = iter(inputs)
        arrays = [
            np.zeros(argument.shape, argument.dtype) if argument.is_output else next(remaining)
            for argument in self._arguments
        ]
        return [tvm.runtime.from_dlpack(array) for array in on_pages(arrays)]


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(limit_bytes: int | None) -> None:
    if limit_bytes is not None:
        # The soft limit alone: enough for a candidate, and raising it again stays possible.
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, resource.RLIM_INFINITY))


def main() -> None:
    """Be the nursery of workers: arguments are the control socket's descriptor and the setup file.

    Sets a worker up, and forks it whenever it is told to. Without a setup file it only imports
    TVM, and each worker sets itself up by the file that comes with its order.
    """
    die_with_parent()
    # The terminal's Ctrl-C is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    grown = None
    try:
        if sys.argv[2]:
            grown = _set_up(sys.argv[2])
        else:
            tvm_adapter.meta_schedule_package()
    except Exception as error:
        reason = f"{type(error).__name__}: {tvm_adapter.first_line(error)}"
        control.send(nursery.encode(nursery.Grown(reason)))
        return
    # What is here now stays: workers need not look through it for garbage again and again.
    gc.collect()
    gc.freeze()
    control.send(nursery.encode(nursery.Grown()))
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not packet:
            return
        order = nursery.decode_order(packet)
        if isinstance(order, nursery.Wait):
            pid, status = os.waitpid(order.pid, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if pid else None
            control.send(nursery.encode(nursery.Waited(code)))
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            _be_worker(grown, order.setup_file, *descriptors)
        control.send(nursery.encode(nursery.Forked(pid)))
        for descriptor in descriptors:
            os.close(descriptor)


def _set_up(setup_file: str) -> tuple[Worker, messages.Setup]:
    setup = msgspec.json.decode(Path(setup_file).read_bytes(), type=messages.Setup)
    return Worker(setup), setup


def _be_worker(
    grown: tuple[Worker, messages.Setup] | None,
    setup_file: str | None,
    connection_fd: int,
    stderr_fd: int,
) -> NoReturn:
    """Serve requests in a process forked for it, until the parent hangs up."""
    try:
        os.setsid()
        die_with_parent()
        os.dup2(stderr_fd, 1)
        os.dup2(stderr_fd, 2)
        os.close(stderr_fd)
        worker, setup = grown or _set_up(setup_file or "")
        _limit_memory(setup.memory_limit_bytes)
        connection = Connection(connection_fd)
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
            connection.send_bytes(messages.encode(messages.Ready()))
            while True:
                request = messages.decode_request(connection.recv_bytes())
                connection.send_bytes(messages.encode(worker.handle(request)))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    # TVM's thread pool may wait for ever in its destructor; nothing is left to be saved.
    os._exit(0)


if __name__ == "__main__":
    main()
    os._exit(0)
