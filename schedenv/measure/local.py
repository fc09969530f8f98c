"""Measure on this machine: compile in parallel workers, time alone, survive every candidate."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from schedenv.measure.building import Builder, answer_twins
from schedenv.measure.floor import floor_s
from schedenv.measure.job import Batch, Job
from schedenv.measure.known import KnownResults
from schedenv.measure.nursery import Nursery
from schedenv.measure.pool import Ended, Limits, WorkerPool
from schedenv.measure.process import Spawn, WorkerProcess
from schedenv.measure.result import Result
from schedenv.measure.running import Runner
from schedenv.measure.scratch import make_scratch
from schedenv.measure.shared import Bench
from schedenv.measure.timing import calls_per_sample
from schedenv.measure.turns import MachineTurns
from schedenv.space import Point
from schedenv.tasks import Task

_ROUND = 64
"""Candidates built before any of them is run."""

_SPANS_OF_CACHE = 2
"""Weights that are read after so many last-level caches' worth of others are not in it."""

_USUAL_L3_BYTES = 32 << 20


@dataclass(frozen=True)
class Loaded:
    """A kernel that a worker holds ready."""

    measurer: LocalMeasurer
    job: Job

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
    with every worker idle, here and in every other schedenv process on the machine. A worker that
    hangs, crashes or exhausts its memory is killed with its whole process tree and replaced, the
    candidate that it was working on gets a status, and what else it had built is built again.
    Code that was measured before is not measured again.

    Args:
        task: What is measured.
        hardware: The machine; kernels use all its cores.
        workers: How many candidates are compiled at once; None for one a core.
        limits: Deadlines.
        seed: Of the verification inputs.
        bench: Where several tasks are measured in turn, what they share; its seed holds. None for
            a measurer that stands alone.

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
        bench: Bench | None = None,
    ) -> None:
        task.check_memory()
        self._limits = limits or Limits()
        self._hardware = hardware
        self._next_job = 0
        self._known = KnownResults()
        self._nursery: Nursery | None = None
        self._pool: WorkerPool | None = None
        self._turns = MachineTurns()
        self._scratch = make_scratch()
        try:
            spawn = self._start(task, seed) if bench is None else self._start_on(bench, task)
            self._pool = WorkerPool(workers or hardware.cores, spawn, self._scratch, self._limits)
        except BaseException:
            self.close()
            raise
        self._builder = Builder(self._pool, self._limits, self._known)
        self._runner = Runner(self._pool, self._limits, floor_s(task, peaks(hardware)))

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
        known_s = (incumbent_s, self._runner.best_s)
        batch.bar_s = min((s for s in known_s if s is not None), default=None)
        self._work(batch)
        for job in batch.jobs:
            if job.result is not None and not job.result.repeated:
                self._known.add(job.result)
        self._forget_jobs()
        return [job.result for job in batch.jobs if job.result is not None]

    def remember(self, results: Sequence[Result]) -> None:
        """Take over the results of an earlier run; see `schedenv.measure.measurer.Measurer`."""
        for result in results:
            self._known.add(result)
        times_s = [result.estimate_s for result in results if result.estimate_s is not None]
        if times_s:
            self._runner.best_s = min(times_s)

    def load(self, points: Sequence[Point]) -> list[Loaded]:
        """Build, verify and time points, and keep them loaded, so that samples can be taken.

        Meant for a fresh measurer with one worker. What was loaded before is forgotten; equal
        points are loaded as often as they are given.
        """
        self._runner.best_s = None
        self._forget_jobs()
        batch = self._new_batch(points, None, None)
        self._work(batch, distinct=False)
        for job in batch.jobs:
            # A crash of one takes what its worker had loaded along.
            if job.result is not None and job.result.ok and not job.held_by(self._live.workers):
                job.forget_build()
                job.result = None
                job.looks.clear()
        self._work(batch, distinct=False)
        return [Loaded(self, job) for job in batch.jobs]

    def renew(self) -> bool:
        """Go on in processes that are no copies of those before: memory lies elsewhere in them."""
        if self._nursery is not None:
            self._nursery.close()
        for worker in list(self._live.workers):
            self._live.replace(worker)
        return True

    def close(self) -> None:
        """Kill the workers and remove the scratch directory."""
        if self._pool is not None:
            self._pool.close()
        if self._nursery is not None:
            self._nursery.close()
        self._turns.close()
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
    ) -> Batch:
        jobs = [Job(self._next_job + offset, point) for offset, point in enumerate(points)]
        self._next_job += len(jobs)
        return Batch(jobs, incumbent_s, on_result)

    def _work(self, batch: Batch, *, distinct: bool = True) -> None:
        """Build and run until every job has a result."""
        while unfinished := batch.unfinished():
            batch.pending.extend(unfinished[:_ROUND] if distinct else unfinished)
            with self._turns.building():
                self._builder.build_all(batch, distinct=distinct)
            with self._turns.timing():
                self._runner.run_all(batch)
        answer_twins(batch)

    def sample_s(self, job: Job, number: int) -> float:
        """One sample of a loaded job; see `Loaded.sample_s`."""
        assert job.worker is not None
        assert job.result is not None
        limit_s = self._limits.run_s(job.result.estimate_s)
        answer = self._ask(job.worker, messages.Sample(job.id, number), limit_s)
        if not isinstance(answer, messages.Sampled):
            raise WorkerError(
                f"the worker comparing finalists gave no sample within {limit_s:.3g} s, "
                "though it had timed the same kernel before; run again on a quieter machine"
            )
        return answer.sample_s

    def slowdown(self) -> float | None:
        """How much slower than undisturbed the machine is now.

        Raises:
            WorkerError: The worker died or is overdue.
        """
        limit_s = self._limits.run_s(None)
        answer = self._ask(self._live.workers[0], messages.Probe(), limit_s)
        if not isinstance(answer, messages.Probed):
            raise WorkerError(
                "the worker comparing finalists could not time the reference kernel within "
                f"{limit_s:.3g} s; run again on a quieter machine"
            )
        return answer.slowdown

    def _ask(
        self, worker: WorkerProcess, request: messages.MeasuringRequest, limit_s: float
    ) -> messages.Response | Ended:
        with self._turns.timing():
            worker.ask(request, limit_s)
            return self._live.wait_for(worker)

    # -- workers --------------------------------------------------------------------------------

    def _start(self, task: Task, seed: int) -> Spawn:
        reference.prepare(task, self._scratch, self._hardware, seed)
        self._nursery = Nursery(
            self._write_setup(task, self._scratch),
            self._scratch,
            hw.worker_environment(self._hardware),
            self._limits.start_s,
        )
        return self._nursery.spawn

    def _start_on(self, bench: Bench, task: Task) -> Spawn:
        return bench.spawn_for(self._write_setup(task, bench.data_dir(task)))

    def _write_setup(self, task: Task, data_dir: Path) -> Path:
        memory = psutil.virtual_memory()
        setup = messages.Setup(
            module_json=tvm_adapter.module_to_json(task.mod),
            hardware=self._hardware,
            data_dir=str(data_dir),
            memory_limit_bytes=int(memory.total * 0.75),
            undisturbed_s=peaks(self._hardware).reference_s,
            weights=task.weights,
            span_bytes=min(
                task.span_bytes, _SPANS_OF_CACHE * (self._hardware.l3_bytes or _USUAL_L3_BYTES)
            ),
        )
        path = self._scratch / "setup.json"
        path.write_bytes(msgspec.json.encode(setup))
        return path

    def _forget_jobs(self) -> None:
        """Free the kernels that idle workers hold."""
        for worker in self._live.workers:
            if not worker.busy:
                worker.ask(messages.Drop(), self._limits.start_s)
        while self._live.busy:
            for worker, answer in self._live.wait():
                if not isinstance(answer, messages.Ready):
                    self._live.replace(worker)
