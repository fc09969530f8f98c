"""A candidate on its way through the measurer, and the batch it came with."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from schedenv.measure import messages
from schedenv.measure.process import WorkerProcess
from schedenv.measure.result import Phases, Result, Status, robust_estimate
from schedenv.measure.timing import Look, calmest, counted_samples
from schedenv.space import Point


@dataclass(eq=False)
class Job:
    """One point on its way through a batch.

    Attributes:
        id: Number that names it to the worker.
        point: What is measured.
        lowered: The answer to `messages.Lower`; None before.
        built: The answer to `messages.Build`; None before.
        worker: Who builds it, and then holds the kernel.
        limit_s: Deadline of the build.
        retried: Whether a kill from outside has cost it one attempt.
        looks: Sequences of samples taken so far.
        result: How it ended; None before.
    """

    id: int
    point: Point
    lowered: messages.Lowered | None = None
    built: messages.Built | None = None
    worker: WorkerProcess | None = None
    limit_s: float = 0.0
    retried: bool = False
    looks: list[Look] = field(default_factory=list)
    result: Result | None = None

    def held_by(self, workers: Iterable[WorkerProcess]) -> bool:
        """Whether a living worker holds the compiled kernel."""
        return (
            self.built is not None
            and self.built.status is Status.OK
            and any(self.worker is worker for worker in workers)
        )

    def forget_build(self) -> None:
        """Be as before it was built."""
        self.lowered = self.built = None

    def result_so_far(
        self, status: Status, reason: str | None = None, spent: Phases | None = None
    ) -> Result:
        """A result with everything known of the job and no estimate.

        Args:
            status: How it ended.
            reason: Why.
            spent: What it cost beside what its worker told; None for nothing.
        """
        phases = Phases()
        for answer in (self.lowered, self.built):
            phases = answer.phases if answer is not None else phases
        phases += spent or Phases()
        return Result(
            point=self.point,
            status=status,
            reason=reason,
            program=self.lowered.program if self.lowered else None,
            code=self.lowered.code if self.lowered else None,
            phases=phases,
        )

    @property
    def judged(self) -> Sequence[Look]:
        """The looks that its estimate comes from.

        Its turns, if it took any: the first look chose it and so flatters it. Of those the calm
        ones, if there are any.
        """
        return calmest(self.looks[1:] or self.looks)

    @property
    def calm(self) -> bool:
        """Whether its estimate comes from calm looks."""
        return all(look.calm for look in self.judged)

    @property
    def estimate_s(self) -> float:
        """Median of `estimates_s`."""
        return statistics.median(self.estimates_s)

    @property
    def estimates_s(self) -> list[float]:
        """The estimate of each look that counts."""
        return [robust_estimate(look.samples_s) for look in self.judged]

    def timed(self, result: Result) -> Result:
        """The result with all samples so far, and what they say of each other."""
        return msgspec.structs.replace(
            result,
            samples_s=tuple(sample for look in self.looks for sample in look.samples_s),
            slowdowns=tuple(look.slowdown for look in self.looks if look.slowdown is not None),
            counted=counted_samples(self.judged, self.looks),
        )


@dataclass
class Batch:
    """The jobs of one call of `measure`.

    Attributes:
        jobs: In the order asked.
        bar_s: Estimate of the fastest candidate known so far; None if there is none.
        on_result: Told every new result.
        pending: Jobs still to be built.
        twins: Jobs whose code another job of the batch is already measuring.
    """

    jobs: list[Job]
    bar_s: float | None
    on_result: Callable[[Result], None] | None
    pending: deque[Job] = field(default_factory=deque)
    twins: list[tuple[Job, Job]] = field(default_factory=list)

    def finish(self, job: Job, result: Result) -> None:
        """Give a job its final result."""
        job.result = result
        if self.on_result is not None and not result.repeated:
            self.on_result(result)

    def lost(self, worker: WorkerProcess) -> None:
        """A worker is gone: what it held for the unfinished jobs is gone too."""
        for job in self.jobs:
            if job.worker is worker and job.result is None:
                job.forget_build()

    def unfinished(self) -> list[Job]:
        """Jobs without a result that wait for no other job's."""
        waiting = {id(job) for job, _ in self.twins}
        return [job for job in self.jobs if job.result is None and id(job) not in waiting]
