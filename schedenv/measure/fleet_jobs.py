"""A candidate on its way through a fleet, the batch it came with, and the deadlines of both."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from schedenv.measure import messages
from schedenv.measure.known import KnownResults, repeat
from schedenv.measure.pool import Limits
from schedenv.measure.result import Phases, Result, Status, robust_estimate
from schedenv.measure.timing import CLOSE_FACTOR, Look, calmest, counted_samples
from schedenv.space import Point

_LOOKS = 3
_BUILDS_REMEMBERED = 64
_SLOWEST_LINK_BYTES_PER_S = 4e6
_TRANSFERS = 3
"""Inputs there, poison there, outputs back."""


@dataclass(frozen=True)
class FleetLimits(Limits):
    """Deadlines of a fleet's measurer; those of building and running are the local measurer's.

    Attributes:
        none_s: How long to wait for a device while none is registered, or the tracker is gone.
        busy_s: How long to wait for a device while all are busy.
        jit_s: For a device to compile LLVM's text.
        compare_s: How long a device is held while finalists are compared on it.
        grace_s: After the device's own deadline, before it counts as lost.
        most_losses: A candidate whose session dies this often while it runs is to blame.
        most_failed_connections: A candidate that cannot even be sent to this many devices ends
            the run: the fleet cannot be used.
    """

    none_s: float = 60.0
    busy_s: float = 300.0
    jit_s: float = 12.0
    compare_s: float = 180.0
    grace_s: float = 15.0
    most_losses: int = 3
    most_failed_connections: int = 8

    def session_s(self, incumbent_s: float | None, transfer_bytes: int) -> float:
        """How long a device may be held to verify and time one candidate.

        Args:
            incumbent_s: Estimate of the best candidate so far; None if there is none.
            transfer_bytes: Size of the candidate's inputs and outputs.
        """
        transfer_s = _TRANSFERS * transfer_bytes / _SLOWEST_LINK_BYTES_PER_S
        return self.run_s(incumbent_s) + self.jit_s + transfer_s

    @property
    def acquire_s(self) -> float:
        """After this long a worker that waits for a device must have given up by itself."""
        return max(self.none_s, self.busy_s) + self.grace_s


class Step(Enum):
    """What a worker does for a job."""

    BUILD = "build"
    ACQUIRE = "acquire"
    RUN = "run"


@dataclass(eq=False)
class Job:
    """One point on its way through a batch.

    Attributes:
        id: Number that names it to the workers.
        point: What is measured.
        built: The answer to `messages.Build`; None before.
        build_limit_s: Deadline of the build.
        retried: Whether a kill from outside has cost it one build.
        device: Address of the device that it was sent to last; None before.
        losses: How many devices failed it.
        losses_while_running: How many of them while its kernel was there.
        doubted: Whether one impossible time was dismissed.
        looks: Sequences of samples taken so far.
        result: How it ended; None before.
    """

    id: int
    point: Point
    built: messages.Built | None = None
    build_limit_s: float = 0.0
    retried: bool = False
    device: str | None = None
    losses: int = 0
    losses_while_running: int = 0
    doubted: bool = False
    looks: list[Look] = field(default_factory=list)
    result: Result | None = None


class Batch:
    """The jobs of one call of `measure`.

    Args:
        jobs: In the order asked.
        incumbent_s: Estimate of the best candidate so far; None if there is none.
        on_result: Told every new result.
        known: What has been measured before, and will be; None measures equal programs anew.
        floor_s: Seconds below which a measurement cannot be true.

    Attributes:
        to_build: Jobs that wait for a worker.
        to_run: Built jobs that wait for a device.
        builds_s: How long the last builds took.
    """

    def __init__(
        self,
        jobs: list[Job],
        incumbent_s: float | None,
        on_result: Callable[[Result], None] | None,
        known: KnownResults | None,
        floor_s: float,
    ) -> None:
        self._floor_s = floor_s
        self.jobs, self.incumbent_s, self._on_result = jobs, incumbent_s, on_result
        self._known = known
        self._twins: dict[str, list[Job]] = {}
        self.to_build = deque(jobs)
        self.to_run: deque[Job] = deque()
        self.builds_s: deque[float] = deque(maxlen=_BUILDS_REMEMBERED)
        self._spent_s: dict[int, tuple[float, float]] = {}

    def built(self, job: Job, answer: messages.Built) -> None:
        """A worker has compiled a job, or failed to."""
        job.built = answer
        if answer.status is not Status.OK or answer.program is None:
            self.finish(job, answer.status, answer.reason)
            return
        self.builds_s.append(answer.phases.total_s)
        known = self._known.find(answer.program, None) if self._known is not None else None
        if known is not None:
            job.result = repeat(known, job.point, answer.program, answer.phases)
        elif self._known is not None and answer.program in self._twins:
            self._twins[answer.program].append(job)
        else:
            self._twins[answer.program] = []
            self.to_run.append(job)

    def ran(self, job: Job, answer: messages.Ran, *, once: bool = False) -> None:
        """A device has run a job.

        A candidate close to the incumbent is run three times, each at another moment and possibly
        on another device; the median look counts, of the calm ones if there are any, for the best
        of many is otherwise the one whose look was luckiest.

        Args:
            job: Which.
            answer: How it went.
            once: Whether one look is enough however close it is.
        """
        verify_s, run_s = self._spent_s.get(job.id, (0.0, 0.0))
        self._spent_s[job.id] = (verify_s + answer.verify_s, run_s + answer.run_s)
        status, reason = self._judge(answer)
        if status is Status.NOISY and not job.doubted:
            job.doubted = True
            self.to_run.append(job)
            return
        if status is not Status.OK or answer.look is None:
            self.finish(job, status, reason, answer.max_error)
            return
        job.looks.append(answer.look)
        looks = calmest(job.looks)
        estimate_s = statistics.median(robust_estimate(look.samples_s) for look in looks)
        close = self.incumbent_s is not None and estimate_s < CLOSE_FACTOR * self.incumbent_s
        if close and not once and len(job.looks) < _LOOKS:
            self.to_run.append(job)
            return
        self.incumbent_s = min(estimate_s, self.incumbent_s or estimate_s)
        self.finish(job, Status.OK, None, answer.max_error, estimate_s)

    def _judge(self, answer: messages.Ran) -> tuple[Status, str | None]:
        """A time that no kernel of the task can have is noise, whatever it is the time of."""
        if answer.look is None or min(answer.look.samples_s) >= self._floor_s:
            return answer.status, answer.reason
        return Status.NOISY, (
            f"timed at {min(answer.look.samples_s) * 1e6:.3g} us, below the "
            f"{self._floor_s * 1e6:.3g} us that the device needs at the very least"
        )

    def finish(
        self,
        job: Job,
        status: Status,
        reason: str | None,
        max_error: float | None = None,
        estimate_s: float | None = None,
        spent: Phases | None = None,
    ) -> None:
        """Give a job its result, and tell it."""
        verify_s, run_s = self._spent_s.get(job.id, (0.0, 0.0))
        before = job.built.phases if job.built else Phases()
        looks = job.looks if status is Status.OK else []
        job.result = Result(
            point=job.point,
            status=status,
            reason=reason,
            samples_s=tuple(sample for look in looks for sample in look.samples_s),
            slowdowns=tuple(look.slowdown for look in looks if look.slowdown is not None),
            counted=counted_samples(calmest(looks), looks),
            estimate_s=estimate_s,
            early_stopped=any(look.early_stopped for look in looks),
            max_error=max_error,
            program=job.built.program if job.built else None,
            phases=before + Phases(verify_s=verify_s, run_s=run_s) + (spent or Phases()),
        )
        if self._known is not None and job.result.program is not None:
            self._known.add(job.result)
            for twin in self._twins.pop(job.result.program, []):
                spent = twin.built.phases if twin.built else Phases()
                twin.result = repeat(job.result, twin.point, job.result.program, spent)
        if self._on_result is not None:
            self._on_result(job.result)
