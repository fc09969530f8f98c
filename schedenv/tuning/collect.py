"""Measuring training data for cost models: many tasks, a few points of each, into one store."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from schedenv import hardware as hw
from schedenv.errors import OutputDirError
from schedenv.measure import Result, Status
from schedenv.measure.local import LocalMeasurer
from schedenv.records import RecordStore, Run, RunRecords
from schedenv.records.database import is_url
from schedenv.records.record import now
from schedenv.space import Point, SearchSpace, Space
from schedenv.tasks import Task
from schedenv.tuning import run_dir
from schedenv.tuning.budget import Budget
from schedenv.tuning.loop import Loop, Progress
from schedenv.tuning.tune import run_interruptibly

AGENT = "collect"
"""Who proposed the points, in the store."""

_NEAR = 0.25
_PARENTS = 5
_TRIES = 20


class Sampler:
    """An agent that asks for training data: random points, and some neighbours of good ones.

    Three of four points are drawn from the whole space. The fourth is a neighbour of one of the
    five fastest so far, for a model is asked most about points like those, and the draws alone
    hold few of them.

    Args:
        space: The task's points.
        seed: Of the draws.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._asked: set[Point] = set()
        self._best: list[tuple[float, Point]] = []

    def ask(self, count: int) -> list[Point]:
        """`count` points, none asked for before unless the space seems to be used up."""
        return [self._draw() for _ in range(count)]

    def tell(self, results: Sequence[Result]) -> None:
        """Remember the fastest."""
        told = {r.point: r.estimate_s for r in results if r.estimate_s is not None}
        known = {point: time_s for time_s, point in self._best} | told
        self._best = sorted((time_s, point) for point, time_s in known.items())[:_PARENTS]

    def state_dict(self) -> dict[str, Any]:
        """The fastest points."""
        return {"asked": len(self._asked), "best": [str(point) for _, point in self._best]}

    def _draw(self) -> Point:
        for _ in range(_TRIES):
            if self._best and self._rng.random() < _NEAR:
                parent = self._best[int(self._rng.integers(len(self._best)))][1]
                near = self._space.neighbours(parent)
                point = near[int(self._rng.integers(len(near)))] if near else parent
            else:
                point = self._space.sample(self._rng)
            if point not in self._asked:
                break
        self._asked.add(point)
        return point


@dataclass(frozen=True)
class CollectRequest:
    """What to collect.

    Attributes:
        tasks: The tasks, in order.
        points: Different programs measured for each.
        seed: Of the draws.
        out: A record store: a file that ends in `.sqlite`, a directory to put `records.sqlite`
            in, or a URL.
        resume: Go on with what is there.
    """

    tasks: tuple[Task, ...]
    points: int
    seed: int
    out: str
    resume: bool = False

    @property
    def store(self) -> str:
        """The place of the record store."""
        if is_url(self.out) or Path(self.out).suffix == ".sqlite":
            return self.out
        return str(Path(self.out) / run_dir.RECORDS)


@dataclass
class Collected:
    """How far collecting is.

    Attributes:
        total: Programs to be measured in all.
        by_task: Programs measured so far, by earlier runs too, by task and status.
        fresh: How many of them this run measured.
        elapsed_s: Seconds of this run.
        interrupted_by: The signal that ended it; None if it went through.
    """

    total: int
    by_task: dict[str, Counter[Status]] = field(default_factory=dict)
    fresh: int = 0
    elapsed_s: float = 0.0
    interrupted_by: int | None = None

    @property
    def counts(self) -> Counter[Status]:
        """Measured programs of all tasks, by status."""
        return sum(self.by_task.values(), Counter())

    @property
    def done(self) -> int:
        """Measured programs of all tasks."""
        return self.counts.total()

    @property
    def task(self) -> str:
        """The task that is being measured, or was last."""
        return next(reversed(self.by_task), "")

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds until the end, at the mean pace so far; None before the first."""
        return (self.total - self.done) * self.elapsed_s / self.fresh if self.fresh else None


def collect(
    request: CollectRequest, on_progress: Callable[[Collected], None] | None = None
) -> Collected:
    """Measure training data; each result is kept at once, and an interrupted run can go on.

    A task whose space holds fewer programs ends early. A larger `points` adds to a finished run.

    Args:
        request: What to collect.
        on_progress: Called when a task begins and after every result.

    Raises:
        OutputDirError: There are results of the same tasks and seed, and `resume` is false; or
            none, and it is true.
        MachineError: The measurement backend failed.
        StoreError: Results cannot be stored.
    """
    hardware = hw.detect()
    state = Collected(total=request.points * len(request.tasks))
    notify = on_progress or (lambda _: None)
    started_s = time.monotonic()
    _make_folder(request.store)
    with RecordStore(request.store, hardware.fingerprint, allow_foreign=True) as store:
        _check_resume(request, store, hardware)
        for task in request.tasks:
            records = RunRecords(store, _run(request, task, hardware))
            before = Counter(r.result.status for r in records.records(task.content_hash))
            state.by_task[task.name] = before
            notify(state)
            if before.total() >= request.points:
                continue

            def note(progress: Progress, name: str = task.name) -> None:
                state.by_task[name] = progress.counts
                state.fresh += 1
                state.elapsed_s = time.monotonic() - started_s
                notify(state)

            space = Space(task.mod, hardware)
            with LocalMeasurer(task, hardware, seed=request.seed) as measurer:
                loop = Loop(
                    task, space, Sampler(space, request.seed), measurer, records,
                    Budget(trials=request.points), hardware, note,
                )  # fmt: skip
                state.interrupted_by = run_interruptibly(loop)
            if state.interrupted_by is not None:
                break
            # What a small space does not hold is not waited for.
            state.total -= request.points - state.by_task[task.name].total()
    state.elapsed_s = time.monotonic() - started_s
    return state


def _make_folder(store: str) -> None:
    if is_url(store):
        return
    try:
        Path(store).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputDirError(
            f"{Path(store).parent} cannot be made ({error.strerror or error}); choose another --out"
        ) from None


def _run_id(request: CollectRequest, task: Task, hardware: hw.Hardware) -> str:
    """The same for the same data, so that resuming needs no memory of its own."""
    return f"{AGENT}-{task.content_hash}-{hardware.fingerprint}-{request.seed}"


def _run(request: CollectRequest, task: Task, hardware: hw.Hardware) -> Run:
    return Run(
        id=_run_id(request, task, hardware),
        task_hash=task.content_hash,
        task_name=task.name,
        agent=AGENT,
        seed=request.seed,
        host=platform.node() or None,
        details={
            "points": request.points,
            "hardware": hardware.to_dict(),
            "versions": {name: version(name) for name in ("schedenv", "apache-tvm")},
        },
        started_at=now(),
    )


def _check_resume(request: CollectRequest, store: RecordStore, hardware: hw.Hardware) -> None:
    known = [
        task.name
        for task in request.tasks
        if store.records(task.content_hash, run_id=_run_id(request, task, hardware))
    ]
    if known and not request.resume:
        raise OutputDirError(
            f"{store.name} already holds what was collected for {', '.join(known[:3])} with seed "
            f"{request.seed}; continue with --resume, or choose another --out or --seed"
        )
    if request.resume and not known:
        raise OutputDirError(
            f"{store.name} holds nothing that was collected for these tasks with seed "
            f"{request.seed}; leave --resume out to start"
        )
