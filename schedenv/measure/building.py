"""Build the candidates of a batch in parallel, and only those whose code is new."""

from __future__ import annotations

import itertools
from collections import deque
from weakref import WeakKeyDictionary

from schedenv.measure import messages
from schedenv.measure.job import Batch, Job
from schedenv.measure.known import KnownResults, repeat
from schedenv.measure.pool import Ended, Limits, WorkerPool
from schedenv.measure.process import WorkerProcess
from schedenv.measure.result import Phases, Status

_KILLED_FROM_OUTSIDE = 9
_BUILDS_REMEMBERED = 64


class Builder:
    """Hands every idle worker the next job: first all are lowered, then the new ones compiled.

    The largest are compiled first, so that the workers finish together and one that is killed over
    a candidate of seconds takes few finished kernels along. How long it took to lower a job tells
    its size: both take longest where loops are unrolled into thousands of statements.

    Args:
        pool: The workers.
        limits: Deadlines.
        known: Results of earlier batches.
    """

    def __init__(self, pool: WorkerPool, limits: Limits, known: KnownResults) -> None:
        self._pool, self._limits, self._known = pool, limits, known
        self._active: dict[WorkerProcess, Job] = {}
        self._lowered: list[Job] = []
        self._builds_s: deque[float] = deque(maxlen=_BUILDS_REMEMBERED)
        self._codes: dict[str, str] = {}
        self._taught: WeakKeyDictionary[WorkerProcess, int] = WeakKeyDictionary()

    def build_all(self, batch: Batch, *, distinct: bool = True) -> None:
        """Build every pending job; afterwards all workers are ready and idle.

        Args:
            batch: Its pending jobs.
            distinct: Whether a job whose code is known, or is another job's of the batch, takes
                over that result instead of being built.
        """
        while batch.pending or self._lowered or self._pool.busy:
            for worker in list(self._pool.workers):
                if worker.busy:
                    continue
                if batch.pending:
                    self._lower_next(worker, batch, quick=distinct)
                elif self._lowered:
                    self._compile_next(worker, quick=distinct)
            for worker, answer in self._pool.wait():
                self._take(worker, answer, batch, distinct=distinct)

    def _lower_next(self, worker: WorkerProcess, batch: Batch, *, quick: bool) -> None:
        holds_jobs = any(job.worker is worker and job.result is None for job in batch.jobs)
        if worker.builds >= self._limits.builds_per_worker and not holds_jobs:
            self._pool.replace(worker)
            return
        job = batch.pending.popleft()
        self._assign(job, worker, quick=quick)
        worker.ask(messages.Lower(job.id, job.point, self._news_for(worker)), job.limit_s)

    def _news_for(self, worker: WorkerProcess) -> dict[str, str]:
        """The code of outlines, as far as others lowered them since the worker was last told."""
        news = dict(itertools.islice(self._codes.items(), self._taught.get(worker, 0), None))
        self._taught[worker] = len(self._codes)
        return news

    def _compile_next(self, worker: WorkerProcess, *, quick: bool) -> None:
        """Let a worker compile a job that it has lowered, or else another one's, lowered again.

        Until the usual time of a build is known, and with it the deadline, the smallest go first.
        """
        own = [job for job in self._lowered if job.worker is worker]
        first = max if self._limits.knows_usual(self._builds_s) else min
        job = first(own or self._lowered, key=_lowered_s)
        self._lowered.remove(job)
        self._assign(job, worker, quick=quick)
        # Kernels of the final comparison are compiled with LLVM's own options.
        worker.ask(messages.Build(job.id, job.point, quick=quick), job.limit_s)

    def _assign(self, job: Job, worker: WorkerProcess, *, quick: bool) -> None:
        job.worker = worker
        # A finalist is not given up because others are small.
        limits = self._limits
        job.limit_s = limits.built_within_s(self._builds_s) if quick else limits.build_s
        self._active[worker] = job

    def _hurry(self) -> None:
        """Hold those at work to the deadline that is known now."""
        limit_s = self._limits.built_within_s(self._builds_s)
        for worker, job in self._active.items():
            job.limit_s = min(job.limit_s, limit_s)
            worker.hurry(job.limit_s)

    def _take(
        self,
        worker: WorkerProcess,
        answer: messages.Response | Ended,
        batch: Batch,
        *,
        distinct: bool,
    ) -> None:
        job = self._active.pop(worker, None)
        if job is None:
            # It died idle: nobody is to blame.
            self._pool.replace(worker)
            self._lose(worker, batch)
        elif isinstance(answer, messages.Lowered):
            job.lowered = answer
            if answer.outline is not None and answer.code is not None:
                self._codes[answer.outline] = answer.code
            if answer.status is not Status.OK:
                batch.finish(job, job.result_so_far(answer.status, answer.reason))
            elif not (distinct and self._is_known(job, batch)):
                self._lowered.append(job)
        elif isinstance(answer, messages.Built):
            job.built = answer
            if answer.status is Status.OK:
                self._builds_s.append(answer.phases.total_s)
                if distinct:
                    self._hurry()
            else:
                batch.finish(job, job.result_so_far(answer.status, answer.reason))
        elif answer is Ended.OVERDUE:
            self._pool.replace(worker)
            reason = f"not compiled after {job.limit_s:.3g} s"
            spent = Phases(build_s=job.limit_s)
            batch.finish(job, job.result_so_far(Status.BUILD_TIMEOUT, reason, spent))
            self._lose(worker, batch)
        else:
            crashed(job, worker, self._pool, batch)
            self._lose(worker, batch)

    def _lose(self, worker: WorkerProcess, batch: Batch) -> None:
        """A worker is gone: what it had lowered or compiled is built in another round."""
        batch.lost(worker)
        self._lowered = [job for job in self._lowered if job.worker is not worker]

    def _is_known(self, job: Job, batch: Batch) -> bool:
        """Whether a job can take over another one's result; if so, that is arranged."""
        lowered = job.lowered
        assert lowered is not None
        known = self._known.find(lowered.program, lowered.code)
        if known is not None:
            batch.finish(job, repeat(known, job.point, lowered.program, lowered.phases))
            return True
        for other in batch.unfinished():
            if other is not job and _code(other) == lowered.code:
                batch.twins.append((job, other))
                return True
        return False


def answer_twins(batch: Batch) -> None:
    """Give every job that waited for equal code that code's result."""
    for job, other in batch.twins:
        if other.result is not None:
            phases = job.lowered.phases if job.lowered else Phases()
            program = job.lowered.program if job.lowered else None
            batch.finish(job, repeat(other.result, job.point, program, phases))
    batch.twins.clear()


def crashed(job: Job, worker: WorkerProcess, pool: WorkerPool, batch: Batch) -> None:
    """A worker closed its connection; the job that it was working on is to blame.

    Nothing in a candidate sends SIGKILL: the kernel or a person did. Such a job is tried once more.
    """
    by_sigkill = worker.ended_by_signal(_KILLED_FROM_OUTSIDE)
    ending = pool.replace(worker)
    if by_sigkill and not job.retried:
        job.retried = True
    elif job.result is None:
        batch.finish(job, job.result_so_far(Status.CRASH, f"worker {ending}"))
    batch.lost(worker)


def _code(job: Job) -> str | None:
    return job.lowered.code if job.lowered is not None else None


def _lowered_s(job: Job) -> float:
    assert job.lowered is not None
    return job.lowered.phases.build_s
