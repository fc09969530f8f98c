"""The process that compiles candidates and runs them on devices of a fleet.

Like `schedenv.measure.worker` it holds no policy and may be killed at any time. Nothing of a
candidate runs here, but TVM's RPC client waits without a limit: the parent holds the deadlines.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.errors import ConstraintError, DeviceError, IllegalPointError
from schedenv.hardware import Hardware
from schedenv.measure import messages, timing
from schedenv.measure.device import DeviceSession
from schedenv.measure.result import Phases, Status
from schedenv.measure.tracker import Fleet, Offer, wait_for_device
from schedenv.measure.verify import Array, VerificationData, deviation
from schedenv.measure.worker import die_with_parent
from schedenv.space import UNTUNED, Space

_TRUSTED_CALL_S = 0.5
"""A call that takes this long by our clock is slow, whatever the network adds to it."""


class DeviceSetup(msgspec.Struct, frozen=True):
    """What a device worker needs before its first job; read from a file, for its size.

    Attributes:
        module_json: The task's module.
        hardware: The devices', for the space and the target.
        data_dir: Where the inputs and expected outputs lie, and compiled kernels go.
        fleet: Which devices.
        none_s: How long to wait for a device while none is registered.
        busy_s: How long to wait while all are busy.
    """

    module_json: str
    hardware: Hardware
    data_dir: str
    fleet: Fleet
    none_s: float
    busy_s: float


class Held(NamedTuple):
    """A device that the tracker has set aside, and how it may be used."""

    offer: Offer
    session_s: float
    keep: bool


class DeviceWorker:
    """Builds the candidates of one task and runs them on devices."""

    def __init__(self, setup: DeviceSetup) -> None:
        self._setup = setup
        self._mod = tvm_adapter.module_from_json(setup.module_json)
        self._target = hw.target(setup.hardware)
        self._space = Space(self._mod, setup.hardware)
        self._arguments = tvm_adapter.arguments(self._mod)
        self._data = VerificationData(Path(setup.data_dir))
        self._held: Held | None = None
        self._session: DeviceSession | None = None
        self._sets: dict[int, int] = {}

    def handle(self, request: messages.DeviceRequest) -> messages.Response:
        """Serve one request."""
        match request:
            case messages.Build():
                return self._build(request)
            case messages.Acquire():
                return self._acquire(request)
            case messages.Run():
                return self._run(request)
            case messages.Sample() | messages.Probe():
                return self._compare(request)
            case messages.Drop():
                self._give_back()
                return messages.Ready()
            case _:
                return messages.Failed(f"a device worker cannot serve {type(request).__name__}")

    def _build(self, request: messages.Build) -> messages.Built:
        program: str | None = None
        start = time.perf_counter()
        applied_s = 0.0
        status, reason = Status.OK, None
        try:
            point = request.point
            mod = self._mod if point == UNTUNED else self._space.apply(point).mod
            program = tvm_adapter.structural_hash(mod)
            applied_s = time.perf_counter() - start
            library = tvm_adapter.build(mod, self._target)
            # LLVM's own text: the device emits the machine code, and nobody needs a linker.
            library.write_to_file(str(self._code(request.job)), "ll")
        except (ConstraintError, IllegalPointError) as error:
            applied_s = time.perf_counter() - start
            status, reason = Status.CONSTRAINT, str(error)
        except MemoryError:
            status, reason = Status.BUILD_ERROR, "out of memory"
        except Exception as error:
            status, reason = Status.BUILD_ERROR, tvm_adapter.first_line(error)
        phases = Phases(apply_s=applied_s, build_s=time.perf_counter() - start - applied_s)
        return messages.Built(request.job, status, reason, program, phases)

    def _code(self, job: int) -> Path:
        return code_file(Path(self._setup.data_dir), job)

    def _acquire(self, request: messages.Acquire) -> messages.Response:
        self._give_back()
        setup = self._setup
        try:
            offer = wait_for_device(setup.fleet, none_s=setup.none_s, busy_s=setup.busy_s)
        except DeviceError as error:
            return messages.Lost(str(error), fatal=True)
        self._held = Held(offer, request.session_s, request.keep)
        return messages.Acquired(str(offer.address))

    def _run(self, request: messages.Run) -> messages.Response:
        held = self._held
        if held is None:
            return messages.Failed("a device worker was asked to run without a device")
        called = False
        try:
            session = self._connected(held)
            arguments = self._prepare(session, request.job)
            called = True
            session.load(request.job, self._code(request.job))
            return self._verify_and_time(session, request, arguments)
        except DeviceError as error:
            return messages.Lost(str(error), fatal=True)
        except Exception as error:
            return self._explain(error, request.job, held, called=called)
        finally:
            if not held.keep:
                self._give_back()

    def _connected(self, held: Held) -> DeviceSession:
        """The session on the held device.

        Raises:
            DeviceError: The device is not what the run's candidates are compiled for.
        """
        if self._session is None:
            self._session = DeviceSession(held.offer, held.session_s)
            self._check(self._session, held)
        return self._session

    def _check(self, session: DeviceSession, held: Held) -> None:
        found = session.description
        if found is None:
            return
        fleet, expected = self._setup.fleet, self._setup.hardware
        if found.hardware.fingerprint != expected.fingerprint:
            raise DeviceError(
                f"the device at {held.offer.address} is {found.hardware.fingerprint}, but this run "
                f"is for {expected.fingerprint}; devices of one key ({fleet.key!r}) must be alike: "
                "serve it under another key"
            )
        ours = importlib.metadata.version("apache-tvm")
        if found.tvm != ours:
            raise DeviceError(
                f"the device at {held.offer.address} has apache-tvm {found.tvm}, this machine "
                f"{ours}; install the same version on both"
            )

    def _prepare(self, session: DeviceSession, job: int) -> int:
        """Send the code and, once a session, the inputs; returns the number of the arguments."""
        session.upload(self._code(job))
        number = job % len(self._data.sets)
        if number not in self._sets:
            inputs = iter(self._data.sets[number][0])
            arrays: list[Array] = [
                np.zeros(argument.shape, argument.dtype) if argument.is_output else next(inputs)
                for argument in self._arguments
            ]
            self._sets[number] = session.allocate(arrays)
        return self._sets[number]

    def _verify_and_time(
        self, session: DeviceSession, request: messages.Run, arguments: int
    ) -> messages.Ran:
        start = time.perf_counter()
        outputs = [index for index, one in enumerate(self._arguments) if one.is_output]
        for index in outputs:
            session.poison(arguments, index)
        called = time.perf_counter()
        session.call(request.job, arguments)
        call_s = time.perf_counter() - called
        _, expected = self._data.sets[request.job % len(self._data.sets)]
        actual = [session.read(arguments, index) for index in outputs]
        error = deviation(actual, expected, self._data.tolerated)
        verify_s = time.perf_counter() - start
        if error > 1.0:
            return messages.Ran(
                request.job,
                Status.WRONG_RESULT,
                f"the output deviates {error:.3g} times more than tolerated",
                max_error=error if math.isfinite(error) else None,
                verify_s=verify_s,
            )
        look = self._look(session, request, arguments, call_s)
        run_s = time.perf_counter() - start - verify_s
        wrong = [sample_s for sample_s in look.samples_s if not 0 < sample_s < math.inf]
        if wrong:
            reason = f"the clock returned {wrong[0]} s"
            return messages.Ran(request.job, Status.NOISY, reason, None, error, verify_s, run_s)
        return messages.Ran(request.job, Status.OK, None, look, error, verify_s, run_s)

    def _look(
        self, session: DeviceSession, request: messages.Run, arguments: int, call_s: float
    ) -> timing.Look:
        """Time a verified kernel; see `timing.Timer`."""
        described = session.description
        timer = timing.Timer(
            lambda: session.time_s(request.job, arguments, 1, 1)[0],
            lambda number, count: session.time_s(request.job, arguments, number, count),
            lambda: session.reference_s() or 0.0,
            described.peaks.reference_s if described else 1.0,
        )
        # Our clock also counts the network; it decides nothing that is close.
        first_call_s = call_s if call_s > _TRUSTED_CALL_S else 0.0
        look = timer.first_look(first_call_s, request.incumbent_s)
        return look if described is not None else msgspec.structs.replace(look, slowdown=None)

    def _compare(self, request: messages.Sample | messages.Probe) -> messages.Response:
        return self._probe() if isinstance(request, messages.Probe) else self._sample(request)

    def _sample(self, request: messages.Sample) -> messages.Response:
        session, number = self._session, request.job % len(self._data.sets)
        if session is None or self._held is None or number not in self._sets:
            return messages.Failed("a device worker was asked for a sample without a session")
        try:
            count = 1 + timing.uncounted_samples(request.number)
            *_, sample_s = session.time_s(request.job, self._sets[number], request.number, count)
        except Exception as error:
            reason = f"{self._held.offer.address}: {tvm_adapter.first_line(error)}"
            return messages.Lost(reason, ran=True)
        return messages.Sampled(request.job, sample_s)

    def _probe(self) -> messages.Response:
        session = self._session
        if session is None or self._held is None or session.description is None:
            return messages.Probed(None)
        undisturbed_s = session.description.peaks.reference_s
        try:
            now = timing.slowdown_now(lambda: session.reference_s() or 0.0, undisturbed_s)
        except Exception as error:
            return messages.Lost(f"{self._held.offer.address}: {tvm_adapter.first_line(error)}")
        return messages.Probed(now)

    def _explain(
        self, error: Exception, job: int, held: Held, *, called: bool
    ) -> messages.Response:
        """Whose fault an error is: the kernel's, if the device still answers."""
        from tvm import error as tvm_error

        text = tvm_adapter.first_line(error)
        if isinstance(error, tvm_error.RPCSessionTimeoutError):
            if called:
                reason = f"not verified and timed within a session of {held.session_s:.3g} s"
                return messages.Ran(job, Status.RUN_TIMEOUT, reason)
            return messages.Lost(f"{held.offer.address}: {text}")
        if called and self._session is not None and self._session.alive():
            return messages.Ran(job, Status.RUN_ERROR, text)
        return messages.Lost(f"{held.offer.address}: {text}", ran=called)

    def _give_back(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = self._held = None
        self._sets.clear()


def code_file(directory: Path, job: int) -> Path:
    """Where the code of a job lies between its build and its run."""
    return directory / f"kernel-{job}.ll"


def main() -> None:
    """Serve requests from the connection whose descriptor is the first argument."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            setup = msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=DeviceSetup)
            worker = DeviceWorker(setup)
        except Exception as error:
            reason = f"{type(error).__name__}: {tvm_adapter.first_line(error)}"
            connection.send_bytes(messages.encode(messages.Failed(reason)))
            return
        connection.send_bytes(messages.encode(messages.Ready()))
        while True:
            request = messages.decode_device_request(connection.recv_bytes())
            connection.send_bytes(messages.encode(worker.handle(request)))


if __name__ == "__main__":
    main()
    # TVM's threads may wait for ever in their destructors; nothing is left to be saved.
    os._exit(0)
