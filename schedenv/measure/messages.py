"""What the measurer and its workers say to each other, one MessagePack object a message.

Not JSON, which has no NaN for a broken clock to return.
"""

from __future__ import annotations

import msgspec

from schedenv.hardware import Hardware
from schedenv.measure.result import Phases, Status
from schedenv.measure.timing import Look
from schedenv.space.point import Point


class Setup(msgspec.Struct, frozen=True):
    """What a worker needs before its first job; read from a file, for its size.

    Attributes:
        module_json: The task's module.
        hardware: The machine, for the space and the target.
        data_dir: Where the inputs and expected outputs lie.
        memory_limit_bytes: Address space that the worker may use; None for no limit.
        undisturbed_s: What the reference kernel takes on the undisturbed machine.
        weights: Arguments of which there are copies, and each call is given other ones.
        span_bytes: Size of all these copies together, about.
    """

    module_json: str
    hardware: Hardware
    data_dir: str
    memory_limit_bytes: int | None
    undisturbed_s: float
    weights: tuple[int, ...] = ()
    span_bytes: int = 0


class Lower(msgspec.Struct, frozen=True, tag=True):
    """Apply a point (or none, for `UNTUNED`) and lower it to the code that LLVM would get.

    Attributes:
        job: Which.
        point: What it measures.
        learned: The code of outlines that the worker may not know; see `Lowered`.
    """

    job: int
    point: Point
    learned: dict[str, str] = {}


class Build(msgspec.Struct, frozen=True, tag=True):
    """Compile a job; applied and lowered first if it was not.

    Attributes:
        job: Which.
        point: What it measures.
        quick: Whether the compiler may save time: see `schedenv.hardware.target`.
    """

    job: int
    point: Point
    quick: bool = False


class Run(msgspec.Struct, frozen=True, tag=True):
    """Verify and time a job that was built.

    Attributes:
        job: Which.
        incumbent_s: Estimate of the best candidate so far, at the machine's present speed; None
            if there is none. A candidate clearly slower than it is not timed to the end.
    """

    job: int
    incumbent_s: float | None


class LookAgain(msgspec.Struct, frozen=True, tag=True):
    """Time a job once more; `call_s` is about what a call takes."""

    job: int
    call_s: float


class Acquire(msgspec.Struct, frozen=True, tag=True):
    """Wait for a device of a fleet, for the next `Run`.

    Attributes:
        session_s: How long the device may be held.
        keep: Whether it is held from the next `Run` until `Drop`, for several runs; otherwise it
            is given back after one.
    """

    session_s: float
    keep: bool = False


class Sample(msgspec.Struct, frozen=True, tag=True):
    """Take one sample, the mean of `number` calls, of a job that was built and run."""

    job: int
    number: int


class Probe(msgspec.Struct, frozen=True, tag=True):
    """Time the reference kernel: how disturbed is the machine now?"""


class Drop(msgspec.Struct, frozen=True, tag=True):
    """Forget all jobs."""


MeasuringRequest = Run | LookAgain | Sample | Probe
Request = Lower | Build | MeasuringRequest | Drop
DeviceRequest = Request | Acquire


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker has set itself up, or has dropped its jobs."""


class Lowered(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Lower`; `status` OK means that the job can be compiled.

    Attributes:
        job: Which.
        status: OK, or why it cannot be compiled.
        reason: The same in words; None if it can.
        program: Structural hash of the scheduled program; None if it could not be applied.
        code: Hash of the lowered program; None if it could not be lowered.
        phases: Seconds spent so far.
        outline: Hash of the program lowered by half, which decides the code
            (`schedenv.tvm_lowering.Lowering`); None if it could not be lowered.
    """

    job: int
    status: Status
    reason: str | None
    program: str | None
    code: str | None
    phases: Phases
    outline: str | None = None


class Built(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Build`; `status` OK means that the job can be run."""

    job: int
    status: Status
    reason: str | None
    program: str | None
    phases: Phases


class Ran(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Run`."""

    job: int
    status: Status
    reason: str | None = None
    look: Look | None = None
    max_error: float | None = None
    verify_s: float = 0.0
    run_s: float = 0.0


class Looked(msgspec.Struct, frozen=True, tag=True):
    """The answer to `LookAgain`."""

    job: int
    look: Look
    run_s: float


class Sampled(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Sample`: seconds a call."""

    job: int
    sample_s: float


class Probed(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Probe`: the reference kernel's time over its undisturbed time.

    None if there is no reference kernel.
    """

    slowdown: float | None


class Acquired(msgspec.Struct, frozen=True, tag=True):
    """The answer to `Acquire`: the device's address, such as `127.0.0.1:9091`."""

    device: str


class Lost(msgspec.Struct, frozen=True, tag=True):
    """The device, not the job, failed; instead of any answer that needs a device.

    Attributes:
        reason: What happened.
        ran: Whether the job's kernel had been handed to it: only then may the job be to blame.
        fatal: Whether waiting for another device is pointless: none came in time, or the fleet is
            not what it should be.
    """

    reason: str
    ran: bool = False
    fatal: bool = False


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The worker itself failed: its set-up, or a request that it cannot serve."""

    reason: str


Response = Ready | Lowered | Built | Ran | Looked | Sampled | Probed | Acquired | Lost | Failed

encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_device_request = msgspec.msgpack.Decoder(DeviceRequest).decode
decode_response = msgspec.msgpack.Decoder(Response).decode
