"""The workers of a measurer: started, waited for with deadlines, replaced when they die."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from multiprocessing import connection
from pathlib import Path

from schedenv.errors import WorkerError
from schedenv.measure import messages
from schedenv.measure.process import Spawn, StartFailedError, WorkerProcess

_ENOUGH_BUILDS = 3


@dataclass(frozen=True)
class Limits:
    """Deadlines and sizes of the local measurer.

    Attributes:
        start_s: For a worker to import TVM and set itself up.
        build_s: For one candidate to be applied and compiled, at most.
        build_first_s: The same, before others are known.
        build_floor_s: The least that it gets.
        build_factor: Once some builds are known, a candidate gets this many times their median,
            those that are being built included: a few candidates take a hundred times longer than
            the others (explicit unrolling), the whole batch would wait for them, and they are slow
            kernels (`runs/build_times.md`).
        run_floor_s: Least time that one candidate gets to be verified and timed.
        run_factor: A candidate gets at least this many times the incumbent's estimate.
        run_first_s: For a candidate when there is no incumbent yet.
        builds_per_worker: A worker is replaced after this many builds, before it leaks.
        start_attempts: A worker that dies this often before it is ready is the machine's fault.
    """

    start_s: float = 90.0
    build_s: float = 30.0
    build_first_s: float = 12.0
    build_floor_s: float = 1.5
    build_factor: float = 8.0
    run_floor_s: float = 4.0
    run_factor: float = 100.0
    run_first_s: float = 120.0
    builds_per_worker: int = 400
    start_attempts: int = 3

    def built_within_s(self, known_s: Sequence[float]) -> float:
        """Deadline for building one candidate, given how long others took."""
        if not self.knows_usual(known_s):
            return min(self.build_s, self.build_first_s)
        return min(
            self.build_s, max(self.build_floor_s, self.build_factor * statistics.median(known_s))
        )

    def knows_usual(self, known_s: Sequence[float]) -> bool:
        """Whether enough builds are known to tell how long one usually takes."""
        return len(known_s) >= _ENOUGH_BUILDS

    def run_s(self, incumbent_s: float | None) -> float:
        """Deadline for verifying and timing one candidate."""
        if incumbent_s is None:
            return self.run_first_s
        return max(self.run_floor_s, self.run_factor * incumbent_s)


class Ended(Enum):
    """What came instead of an answer."""

    DIED = "died"
    OVERDUE = "overdue"


class WorkerPool:
    """Some worker processes of one task.

    Args:
        size: How many.
        spawn: How they are started.
        scratch_dir: Where their standard error goes.
        limits: Deadlines.

    Attributes:
        workers: Those alive, as far as known.
    """

    def __init__(self, size: int, spawn: Spawn, scratch_dir: Path, limits: Limits) -> None:
        self._spawn, self._scratch_dir, self._limits = spawn, scratch_dir, limits
        self._starting: set[WorkerProcess] = set()
        self._failed_starts = 0
        self.workers: list[WorkerProcess] = []
        for _ in range(size):
            self._start()

    @property
    def busy(self) -> bool:
        """Whether any worker owes an answer or is starting."""
        return any(worker.busy for worker in self.workers)

    def wait(self) -> list[tuple[WorkerProcess, messages.Response | Ended]]:
        """Wait until something happens to a busy worker.

        Workers that become ready, or fail to start and are replaced, are dealt with here.

        Returns:
            Workers with their answers, or with how they failed to give one; such a worker is
            still to be replaced. Empty if only starting workers made themselves heard.

        Raises:
            WorkerError: Workers fail to start, again and again.
        """
        busy = {worker.connection: worker for worker in self.workers if worker.busy}
        if not busy:
            return []
        next_s = min(worker.deadline_s for worker in busy.values()) - time.monotonic()
        answered = connection.wait(list(busy), max(0.0, next_s))
        events: list[tuple[WorkerProcess, messages.Response | Ended]] = []
        for ready in answered:
            worker = busy[ready]  # type: ignore[index]
            events.append((worker, worker.collect() or Ended.DIED))
        now_s = time.monotonic()
        events += [
            (worker, Ended.OVERDUE)
            for worker in busy.values()
            if worker.busy and worker.deadline_s <= now_s
        ]
        return [event for event in events if not self._started(*event)]

    def wait_for(self, worker: WorkerProcess) -> messages.Response | Ended:
        """The answer of one worker, the others being idle."""
        if not worker.connection.poll(max(0.0, worker.deadline_s - time.monotonic())):
            return Ended.OVERDUE
        return worker.collect() or Ended.DIED

    def settle(self) -> None:
        """Wait for replaced workers to be ready: nothing may start up beside a timed run."""
        while self._starting:
            self.wait()

    def replace(self, worker: WorkerProcess) -> str:
        """Kill a worker with its whole process tree and start another.

        Returns:
            How it ended, for people.
        """
        ending = worker.kill()
        self.workers.remove(worker)
        self._starting.discard(worker)
        self._start()
        return ending

    def close(self) -> None:
        """Kill all workers."""
        for worker in self.workers:
            worker.kill()
        self.workers.clear()
        self._starting.clear()

    def _start(self) -> None:
        while True:
            try:
                worker = WorkerProcess(self._spawn, self._scratch_dir, self._limits.start_s)
            except StartFailedError as error:
                self._count_failed_start(str(error))
            else:
                self.workers.append(worker)
                self._starting.add(worker)
                return

    def _count_failed_start(self, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= self._limits.start_attempts:
            raise WorkerError(
                f"a measurement worker failed to start {self._failed_starts} times in a row "
                f"({reason}); run: schedenv doctor"
            )

    def _started(self, worker: WorkerProcess, answer: messages.Response | Ended) -> bool:
        """Deal with what a starting worker says; false if it was not starting."""
        if worker not in self._starting:
            return False
        if isinstance(answer, messages.Ready):
            self._starting.discard(worker)
            self._failed_starts = 0
            return True
        ending = worker.kill()
        self.workers.remove(worker)
        self._starting.discard(worker)
        self._count_failed_start(answer.reason if isinstance(answer, messages.Failed) else ending)
        self._start()
        return True
