"""Measure on this machine: compile in parallel workers, time alone, survive every candidate."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import psutil

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.calibration import peaks
from schedenv.errors import WorkerError
from schedenv.measure import messages, reference
from schedenv.measure.pool import Ended, Limits, WorkerPool
from schedenv.measure.process import WorkerProcess
from schedenv.measure.result import Phases, Result, Status, robust_estimate
from schedenv.measure.timing import CLOSE_FACTOR, Look, calls_per_sample
from schedenv.space import Point
from schedenv.tasks import Task

_KILLED_FROM_OUTSIDE = 9
_MORE_LOOKS = 2
_BUILDS_REMEMBERED = 64


@dataclass(eq=False)
class _Job:
    """One point on its way through a batch."""

    id: int
    point: Point
    built: messages.Built | None = None
    worker: WorkerProcess | None = None
    build_limit_s: float = 0.0
    retried: bool = False
    looks: list[Look] = field(default_factory=list)
    result: Result | None = None


@dataclass
class _Batch:
    """The jobs of one call of `measure`, and what is known of the incumbent."""

    jobs: list[_Job]
    incumbent_s: float | None
    on_result: Callable[[Result], None] | None
    pending: deque[_Job] = field(default_factory=deque)
    close: list[_Job] = field(default_factory=list)


@dataclass(frozen=True)
class Loaded:
    """A kernel that a worker holds ready."""

    measurer: LocalMeasurer
    job: _Job

    @property
    def result(self) -> Result:
        """How its verification and first timing went."""
        assert self.job.result is not None
        return self.job.result

    def sample_s(self, calls: int | None = None) -> float:
        """Take one more sample, seconds a call.

        Args:
            calls: How many calls to average; None for as many as the search averages.

        Raises:
            WorkerError: The worker died or is overdue.
        """
        number = calls or calls_per_sample(self.result.estimate_s or 0.0)
        return self.measurer.sample_s(self.job, number)


class LocalMeasurer:
    """Measures points of one task on this machine.

    Workers build in parallel; when all builds of a batch are done, candidates run one at a time
    with every worker idle. A worker that hangs, crashes or exhausts its memory is killed with its
    whole process tree and replaced, the candidate that it was working on gets a status, and what
    else it had built is built again.

    Args:
        task: What is measured.
        hardware: The machine; kernels use all its cores.
        workers: How many candidates are compiled at once; None for one a core.
        limits: Deadlines.
        seed: Of the verification inputs.

    Raises:
        MachineError: The reference cannot be computed.
        MemoryLimitError: The task does not fit in memory.
    """

    def __init__(
        self,
        task: Task,
        hardware: hw.Hardware,
        *,
        workers: int | None = None,
        limits: Limits | None = None,
        seed: int = 0,
    ) -> None:
        task.check_memory()
        self._limits = limits or Limits()
        self._hardware = hardware
        self._next_job = 0
        self._active: dict[WorkerProcess, _Job] = {}
        self._builds_s: deque[float] = deque(maxlen=_BUILDS_REMEMBERED)
        self._pool: WorkerPool | None = None
        self._scratch = Path(tempfile.mkdtemp(prefix="schedenv-"))
        try:
            reference.prepare(task, self._scratch, hardware, seed)
            self._pool = WorkerPool(
                workers or hardware.cores,
                self._write_setup(task),
                self._scratch,
                hw.kernel_environment(hardware),
                self._limits,
            )
        except BaseException:
            self.close()
            raise

    def measure(
        self,
        points: Sequence[Point],
        incumbent_s: float | None = None,
        on_result: Callable[[Result], None] | None = None,
    ) -> list[Result]:
        """Measure the points; see `schedenv.measure.measurer.Measurer`.

        Raises:
            WorkerError: Workers cannot be started.
        """
        batch = self._new_batch(points, incumbent_s, on_result)
        self._work(batch)
        self._forget_jobs()
        return [job.result for job in batch.jobs if job.result is not None]

    def load(self, points: Sequence[Point]) -> list[Loaded]:
        """Build, verify and time points, and keep them loaded, so that samples can be taken.

        Meant for a fresh measurer with one worker. What was loaded before is forgotten.
        """
        self._forget_jobs()
        batch = self._new_batch(points, None, None)
        self._work(batch)
        for job in batch.jobs:
            # A crash of one takes what its worker had loaded along.
            if job.worker not in self._live.workers and job.result is not None and job.result.ok:
                job.built, job.result = None, None
                batch.pending.append(job)
        self._work(batch)
        return [Loaded(self, job) for job in batch.jobs]

    def close(self) -> None:
        """Kill the workers and remove the scratch directory."""
        if self._pool is not None:
            self._pool.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _live(self) -> WorkerPool:
        assert self._pool is not None
        return self._pool

    def _new_batch(
        self,
        points: Sequence[Point],
        incumbent_s: float | None,
        on_result: Callable[[Result], None] | None,
    ) -> _Batch:
        jobs = [_Job(self._next_job + offset, point) for offset, point in enumerate(points)]
        self._next_job += len(jobs)
        return _Batch(jobs, incumbent_s, on_result, deque(jobs))

    def _work(self, batch: _Batch) -> None:
        """Build and run until every job has a result."""
        while batch.pending:
            self._build_all(batch)
            self._run_all(batch)
            self._look_again(batch)

    # -- building -------------------------------------------------------------------------------

    def _build_all(self, batch: _Batch) -> None:
        """Build every pending job; afterwards all workers are ready and idle."""
        while batch.pending or self._live.busy:
            for worker in list(self._live.workers):
                if not worker.busy and batch.pending:
                    self._recycle_or_build(worker, batch)
            for worker, answer in self._live.wait():
                self._take_build(worker, answer, batch)

    def _recycle_or_build(self, worker: WorkerProcess, batch: _Batch) -> None:
        holds_jobs = any(job.worker is worker and job.result is None for job in batch.jobs)
        if worker.builds >= self._limits.builds_per_worker and not holds_jobs:
            self._replace(worker, batch)
            return
        job = batch.pending.popleft()
        job.worker = worker
        self._active[worker] = job
        job.build_limit_s = self._limits.built_within_s(self._builds_s)
        worker.ask(messages.Build(job.id, job.point), job.build_limit_s)

    def _take_build(
        self, worker: WorkerProcess, answer: messages.Response | Ended, batch: _Batch
    ) -> None:
        job = self._active.pop(worker, None)
        if job is None:
            # It died idle: nobody is to blame.
            self._replace(worker, batch)
        elif isinstance(answer, messages.Built):
            job.built = answer
            if answer.status is Status.OK:
                self._builds_s.append(answer.phases.total_s)
            else:
                self._finish(job, answer.status, answer.reason, batch)
        elif answer is Ended.OVERDUE:
            self._replace(worker, batch)
            reason = f"not compiled after {job.build_limit_s:.3g} s"
            self._finish(job, Status.BUILD_TIMEOUT, reason, batch)
        else:
            self._died(worker, job, batch)

    def _died(self, worker: WorkerProcess, job: _Job, batch: _Batch) -> None:
        """A worker closed its connection; the job that it was working on is to blame."""
        by_sigkill = worker.ended_by_signal(_KILLED_FROM_OUTSIDE)
        ending = self._replace(worker, batch, blamed=job)
        if by_sigkill and not job.retried:
            # Nothing in a candidate sends SIGKILL: the kernel or a person did. Try once more.
            job.retried, job.built = True, None
            batch.pending.append(job)
        else:
            self._finish(job, Status.CRASH, f"worker {ending}", batch)

    # -- running --------------------------------------------------------------------------------

    def _run_all(self, batch: _Batch) -> None:
        """Verify and time every built job, one at a time."""
        for job in batch.jobs:
            worker = job.worker
            if job.result is not None or job.built is None or worker is None:
                continue
            limit_s = self._limits.run_s(batch.incumbent_s)
            worker.ask(messages.Run(job.id, batch.incumbent_s), limit_s)
            answer = self._live.wait_for(worker)
            if isinstance(answer, messages.Ran):
                self._finish_run(job, answer, batch)
            elif answer is Ended.OVERDUE:
                self._replace(worker, batch, blamed=job)
                reason = f"not verified and timed after {limit_s:.3g} s"
                self._finish(job, Status.RUN_TIMEOUT, reason, batch)
            else:
                self._died(worker, job, batch)
            self._live.settle()

    def _finish_run(self, job: _Job, ran: messages.Ran, batch: _Batch) -> None:
        assert job.built is not None
        look = ran.look
        job.result = Result(
            point=job.point,
            status=ran.status,
            reason=ran.reason,
            samples_s=look.samples_s if look else (),
            slowdowns=(look.slowdown,) if look else (),
            estimate_s=robust_estimate(look.samples_s)
            if look and ran.status is Status.OK
            else None,
            early_stopped=look.early_stopped if look else False,
            max_error=ran.max_error,
            program=job.built.program,
            phases=msgspec.structs.replace(
                job.built.phases, verify_s=ran.verify_s, run_s=ran.run_s
            ),
        )
        job.looks = [look] if look else []
        # Undecided against the incumbent as it was before this candidate.
        close = _is_close(job.result, batch.incumbent_s)
        self._raise_bar(job.result, batch)
        if close:
            batch.close.append(job)
        else:
            self._deliver(job, batch)

    def _look_again(self, batch: _Batch) -> None:
        """Time the close candidates more often, at other moments, where the ranking is undecided.

        The best of many candidates is the one whose look was luckiest, unless it has to be lucky
        three times.
        """
        for _ in range(_MORE_LOOKS):
            for job in batch.close:
                self._look_once(job, batch)
        for job in batch.close:
            self._deliver(job, batch)
        batch.close.clear()

    def _look_once(self, job: _Job, batch: _Batch) -> None:
        """Add a look to a job's result, if it still matters.

        A kernel that ran before is not expected to fail; if its worker does, what is known stands.
        """
        worker, result = job.worker, job.result
        assert result is not None
        if worker not in self._live.workers or not _is_close(result, batch.incumbent_s):
            return
        limit_s = self._limits.run_s(batch.incumbent_s)
        worker.ask(messages.LookAgain(job.id, result.estimate_s or 0.0), limit_s)
        answer = self._live.wait_for(worker)
        if isinstance(answer, messages.Looked):
            job.looks.append(answer.look)
            job.result = _with_looks(result, job.looks, answer.run_s)
            self._raise_bar(job.result, batch)
        else:
            self._replace(worker, batch)
            self._live.settle()

    def _deliver(self, job: _Job, batch: _Batch) -> None:
        if batch.on_result is not None and job.result is not None:
            batch.on_result(job.result)

    def _raise_bar(self, result: Result, batch: _Batch) -> None:
        """Make a result the incumbent if it is faster."""
        if result.estimate_s is not None:
            batch.incumbent_s = min(result.estimate_s, batch.incumbent_s or result.estimate_s)

    def _finish(self, job: _Job, status: Status, reason: str | None, batch: _Batch) -> None:
        job.result = Result(
            point=job.point,
            status=status,
            reason=reason,
            program=job.built.program if job.built else None,
            phases=job.built.phases if job.built else Phases(),
        )
        self._deliver(job, batch)

    def sample_s(self, job: _Job, number: int) -> float:
        """One sample of a loaded job; see `Loaded.sample_s`."""
        assert job.worker is not None
        assert job.result is not None
        limit_s = self._limits.run_s(job.result.estimate_s)
        job.worker.ask(messages.Sample(job.id, number), limit_s)
        answer = self._live.wait_for(job.worker)
        if not isinstance(answer, messages.Sampled):
            raise WorkerError(
                f"the worker comparing finalists gave no sample within {limit_s:.3g} s, "
                "though it had timed the same kernel before; run again on a quieter machine"
            )
        return answer.sample_s

    # -- workers --------------------------------------------------------------------------------

    def _write_setup(self, task: Task) -> Path:
        memory = psutil.virtual_memory()
        setup = messages.Setup(
            module_json=tvm_adapter.module_to_json(task.mod),
            hardware=self._hardware,
            data_dir=str(self._scratch),
            memory_limit_bytes=int(memory.total * 0.75),
            undisturbed_s=peaks(self._hardware).reference_s,
        )
        path = self._scratch / "setup.json"
        path.write_bytes(msgspec.json.encode(setup))
        return path

    def _replace(self, worker: WorkerProcess, batch: _Batch, blamed: _Job | None = None) -> str:
        """Replace a worker; what it had built is pending again. Returns how it ended."""
        for job in batch.jobs:
            if job.worker is worker and job.result is None and job.built and job is not blamed:
                job.built = None
                batch.pending.append(job)
        self._active.pop(worker, None)
        return self._live.replace(worker)

    def _forget_jobs(self) -> None:
        """Free the kernels that idle workers hold; one that fails to is replaced."""
        for worker in self._live.workers:
            if not worker.busy:
                worker.ask(messages.Drop(), self._limits.start_s)
        while self._live.busy:
            for worker, answer in self._live.wait():
                if not isinstance(answer, messages.Ready):
                    self._live.replace(worker)


def _is_close(result: Result, incumbent_s: float | None) -> bool:
    """Whether a result is too close to the incumbent for one look to rank it."""
    return (
        result.estimate_s is not None
        and incumbent_s is not None
        and result.estimate_s < CLOSE_FACTOR * incumbent_s
    )


def _with_looks(result: Result, looks: Sequence[Look], run_s: float) -> Result:
    """A result with all its looks; the estimate is the median of the looks' estimates."""
    return msgspec.structs.replace(
        result,
        samples_s=tuple(sample for look in looks for sample in look.samples_s),
        slowdowns=tuple(look.slowdown for look in looks),
        estimate_s=statistics.median(robust_estimate(look.samples_s) for look in looks),
        phases=msgspec.structs.replace(result.phases, run_s=result.phases.run_s + run_s),
    )
