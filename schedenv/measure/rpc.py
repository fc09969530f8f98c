"""Measure on the devices of a fleet: compile here, run there, survive the loss of any device.

The tracker is the scheduler: a worker builds without a device, asks the tracker for one when the
code is ready, and gives it back after one verified and timed run. So devices are busy while other
workers compile, and several clients can share them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.calibration import Peaks
from schedenv.errors import DeviceError, DeviceLostError
from schedenv.measure import messages, reference
from schedenv.measure.device_worker import DeviceSetup
from schedenv.measure.fleet_jobs import Batch, FleetLimits, Job, Step
from schedenv.measure.floor import floor_s
from schedenv.measure.known import KnownResults
from schedenv.measure.pool import Ended, WorkerPool
from schedenv.measure.process import WorkerProcess, fresh_interpreter
from schedenv.measure.result import Phases, Result, Status
from schedenv.measure.scratch import make_scratch
from schedenv.measure.timing import calls_per_sample
from schedenv.measure.tracker import Fleet, queues, status_command
from schedenv.space import Point
from schedenv.tasks import Task
from schedenv.tasks.memory import argument_bytes

WORKER_MODULE = "schedenv.measure.device_worker"
_KILLED_FROM_OUTSIDE = 9


@dataclass(frozen=True)
class LoadedOnDevice:
    """A kernel that a device holds ready."""

    measurer: RpcMeasurer
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
            DeviceLostError: The device does not answer any more.
        """
        number = calls or calls_per_sample(self.result.estimate_s or 0.0)
        return self.measurer.sample_s(self.job, number)


class RpcMeasurer:
    """Measures points of one task on the devices of a fleet.

    A device that disappears costs no candidate anything: its job goes to another one. A candidate
    whose session dies on one device after the other has the status `crash`. A program that was
    measured before is not measured again.

    Args:
        task: What is measured.
        hardware: The devices', as `schedenv.measure.probe.describe` tells it.
        fleet: Which devices.
        peaks: The devices' measured limits: what is faster is not believed. None believes all.
        workers: How many candidates are compiled or run at once; None for up to two a device.
        limits: Deadlines.
        seed: Of the verification inputs.

    Raises:
        DeviceError: The tracker cannot be reached.
        MachineError: The reference cannot be computed.
        MemoryLimitError: The task does not fit in memory.
    """

    def __init__(
        self,
        task: Task,
        hardware: hw.Hardware,
        fleet: Fleet,
        *,
        peaks: Peaks | None = None,
        workers: int | None = None,
        limits: FleetLimits | None = None,
        seed: int = 0,
    ) -> None:
        task.check_memory()
        self._limits = limits or FleetLimits()
        self._fleet = fleet
        self._floor_s = floor_s(task, peaks) if peaks is not None else 0.0
        self._transfer_bytes = sum(argument_bytes(one) for one in task.arguments)
        registered = queues(fleet.tracker).get(fleet.key)
        self._devices = max(1, len(registered.devices) if registered else 1)
        self._next_job = 0
        self._known = KnownResults()
        self._doing: dict[WorkerProcess, tuple[Job, Step]] = {}
        self._pool: WorkerPool | None = None
        self._scratch = make_scratch()
        try:
            reference.prepare(task, self._scratch, hardware, seed)
            self._pool = WorkerPool(
                workers or min(2 * self._devices, self._devices + (os.cpu_count() or 1)),
                fresh_interpreter(
                    WORKER_MODULE,
                    self._write_setup(task, hardware),
                    hw.worker_environment(hardware),
                ),
                self._scratch,
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
            DeviceError: No device is left, or the tracker is gone, and neither came back in time.
            WorkerError: Workers cannot be started.
        """
        batch = self._new_batch(points, incumbent_s, on_result, self._known)
        self._work(batch, run=True)
        return [job.result for job in batch.jobs if job.result is not None]

    def remember(self, results: Sequence[Result]) -> None:
        """Take over the results of an earlier run; see `schedenv.measure.measurer.Measurer`."""
        for result in results:
            self._known.add(result)

    def load(self, points: Sequence[Point]) -> list[LoadedOnDevice]:
        """Build, verify and time points on one device and keep them loaded there.

        Meant for a fresh measurer with one worker. What was loaded before is forgotten.

        Raises:
            DeviceError: No device is left, or the tracker is gone, and neither came back in time.
            WorkerError: Workers cannot be started.
        """
        batch = self._new_batch(points, None, None, None)
        self._work(batch, run=False)
        while any(job.result is None for job in batch.jobs):
            self._run_all_on_one_device(batch)
        return [LoadedOnDevice(self, job) for job in batch.jobs]

    def renew(self) -> bool:
        """False: a fresh process might be on another device."""
        return False

    def sample_s(self, job: Job, number: int) -> float:
        """One sample of a loaded job; see `LoadedOnDevice.sample_s`."""
        assert job.result is not None
        limit_s = self._limits.run_s(job.result.estimate_s) + self._limits.grace_s
        answer = self._ask(self._live.workers[0], messages.Sample(job.id, number), limit_s)
        if not isinstance(answer, messages.Sampled):
            raise self._lost(answer)
        return answer.sample_s

    def slowdown(self) -> float | None:
        """How much slower than undisturbed the device is now; None if it times no reference.

        Raises:
            DeviceLostError: The device does not answer any more.
        """
        limit_s = self._limits.run_s(None) + self._limits.grace_s
        answer = self._ask(self._live.workers[0], messages.Probe(), limit_s)
        if not isinstance(answer, messages.Probed):
            raise self._lost(answer)
        return answer.slowdown

    def _lost(self, answer: messages.Response | Ended) -> DeviceLostError:
        reason = answer.reason if isinstance(answer, messages.Lost) else "no answer"
        return DeviceLostError(
            f"the device on which the finalists were compared is lost ({reason}); look with: "
            f"{status_command(self._fleet.tracker)}"
        )

    def close(self) -> None:
        """Kill the workers, which frees the devices, and remove the scratch directory."""
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

    # -- handing out ----------------------------------------------------------------------------

    def _new_batch(
        self,
        points: Sequence[Point],
        incumbent_s: float | None,
        on_result: Callable[[Result], None] | None,
        known: KnownResults | None,
    ) -> Batch:
        # What an earlier call left when it ended in an exception answers nobody any more.
        for worker in list(self._doing):
            self._replace(worker)
        for code in self._scratch.glob("kernel-*"):
            code.unlink()
        jobs = [Job(self._next_job + offset, point) for offset, point in enumerate(points)]
        self._next_job += len(jobs)
        return Batch(jobs, incumbent_s, on_result, known, self._floor_s)

    def _work(self, batch: Batch, *, run: bool) -> None:
        """Build, and run unless told otherwise, until nothing is left to do."""
        while True:
            for worker in list(self._live.workers):
                if not worker.busy:
                    self._hand_out(worker, batch, run=run)
            if not self._doing:
                if not (batch.to_build or (run and batch.to_run)):
                    return
                self._live.settle()
            for worker, answer in self._live.wait():
                self._take(worker, answer, batch)

    def _hand_out(self, worker: WorkerProcess, batch: Batch, *, run: bool) -> None:
        """Give an idle worker what keeps most devices busy: one more waits than there are."""
        if worker.builds >= self._limits.builds_per_worker:
            self._replace(worker)
            return
        holding = sum(step is not Step.BUILD for _, step in self._doing.values())
        if run and batch.to_run and (holding <= self._devices or not batch.to_build):
            job = batch.to_run.popleft()
            self._doing[worker] = (job, Step.ACQUIRE)
            session_s = self._limits.session_s(batch.incumbent_s, self._transfer_bytes)
            worker.ask(messages.Acquire(session_s), self._limits.acquire_s)
        elif batch.to_build:
            job = batch.to_build.popleft()
            self._doing[worker] = (job, Step.BUILD)
            job.build_limit_s = self._limits.built_within_s(batch.builds_s)
            worker.ask(messages.Build(job.id, job.point), job.build_limit_s)

    def _take(self, worker: WorkerProcess, answer: messages.Response | Ended, batch: Batch) -> None:
        """Deal with what a worker says, or with its silence."""
        if worker not in self._doing:
            # It died idle: nobody is to blame.
            self._replace(worker)
            return
        job, step = self._doing.pop(worker)
        match answer:
            case messages.Built():
                batch.built(job, answer)
            case messages.Acquired():
                job.device = answer.device
                self._doing[worker] = (job, Step.RUN)
                worker.ask(messages.Run(job.id, batch.incumbent_s), self._run_limit_s(batch))
            case messages.Ran():
                batch.ran(job, answer)
            case messages.Lost():
                self._lose(job, answer, batch)
            case _ if step is Step.BUILD:
                self._failed_to_build(worker, job, answer, batch)
            case _:
                ending = self._replace(worker)
                reason = f"{job.device}: no answer (worker {ending})"
                self._lose(job, messages.Lost(reason, ran=step is Step.RUN), batch)

    def _run_limit_s(self, batch: Batch) -> float:
        """After this long the device itself must have ended the session."""
        session_s = self._limits.session_s(batch.incumbent_s, self._transfer_bytes)
        return session_s + self._limits.grace_s

    def _failed_to_build(
        self,
        worker: WorkerProcess,
        job: Job,
        answer: messages.Response | Ended,
        batch: Batch,
    ) -> None:
        """A worker hung or died while it compiled: the candidate is to blame."""
        by_sigkill = answer is Ended.DIED and worker.ended_by_signal(_KILLED_FROM_OUTSIDE)
        ending = self._replace(worker)
        if by_sigkill and not job.retried:
            # Nothing in a candidate sends SIGKILL: the kernel or a person did. Try once more.
            job.retried = True
            batch.to_build.append(job)
        elif answer is Ended.OVERDUE:
            reason = f"not compiled after {job.build_limit_s:.3g} s"
            spent = Phases(build_s=job.build_limit_s)
            batch.finish(job, Status.BUILD_TIMEOUT, reason, spent=spent)
        else:
            batch.finish(job, Status.CRASH, f"worker {ending}")

    def _lose(self, job: Job, lost: messages.Lost, batch: Batch) -> None:
        """A job's device failed it: try another one, unless that has been done often enough.

        Raises:
            DeviceError: No device is left, or none can be used.
        """
        if lost.fatal:
            raise DeviceError(lost.reason)
        job.losses += 1
        job.losses_while_running += lost.ran
        if job.losses_while_running >= self._limits.most_losses:
            batch.finish(
                job,
                Status.CRASH,
                f"its session died on {job.losses_while_running} devices; last {lost.reason}",
            )
        elif job.losses - job.losses_while_running >= self._limits.most_failed_connections:
            raise DeviceError(
                f"no device of key {self._fleet.key!r} at the tracker {self._fleet.tracker} can be "
                f"used ({lost.reason}); look with: {status_command(self._fleet.tracker)}"
            )
        else:
            batch.to_run.append(job)

    # -- one device for all ---------------------------------------------------------------------

    def _run_all_on_one_device(self, batch: Batch) -> None:
        """Run every built job in one session; a device lost on the way leaves jobs to be run."""
        self._live.settle()
        worker = self._live.workers[0]
        jobs = [job for job in batch.jobs if job.result is None or job.result.ok]
        acquired = self._ask(
            worker,
            messages.Acquire(self._limits.compare_s, keep=True),
            self._limits.acquire_s,
        )
        if not isinstance(acquired, messages.Acquired):
            self._lose_all(jobs, jobs[0], acquired, batch)
            return
        for job in jobs:
            job.device = acquired.device
            ran = self._ask(worker, messages.Run(job.id, None), self._run_limit_s(batch))
            if not isinstance(ran, messages.Ran):
                self._lose_all(jobs, job, ran, batch)
                return
            job.looks.clear()
            batch.ran(job, ran, once=True)
        batch.to_run.clear()

    def _lose_all(
        self,
        jobs: Sequence[Job],
        blamed: Job,
        answer: messages.Response | Ended,
        batch: Batch,
    ) -> None:
        for job in jobs:
            job.result = None
        if not isinstance(answer, messages.Lost):
            answer = messages.Lost(f"{blamed.device}: no answer", ran=blamed.device is not None)
        self._lose(blamed, answer, batch)

    def _ask(
        self, worker: WorkerProcess, request: messages.DeviceRequest, limit_s: float
    ) -> messages.Response | Ended:
        """The answer of one worker, the others being idle; one that gives none is replaced."""
        worker.ask(request, limit_s)
        answer = self._live.wait_for(worker)
        if isinstance(answer, Ended):
            self._replace(worker)
        return answer

    # -- workers --------------------------------------------------------------------------------

    def _replace(self, worker: WorkerProcess) -> str:
        self._doing.pop(worker, None)
        return self._live.replace(worker)

    def _write_setup(self, task: Task, hardware: hw.Hardware) -> Path:
        setup = DeviceSetup(
            module_json=tvm_adapter.module_to_json(task.mod),
            hardware=hardware,
            data_dir=str(self._scratch),
            fleet=self._fleet,
            none_s=self._limits.none_s,
            busy_s=self._limits.busy_s,
        )
        path = self._scratch / "setup.json"
        path.write_bytes(msgspec.json.encode(setup))
        return path
