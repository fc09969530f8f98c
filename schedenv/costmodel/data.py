"""What cost models learn from: measured points, task by task."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schedenv.errors import InputError, UnknownNameError
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status
from schedenv.measure.table import Table
from schedenv.records import Record
from schedenv.space import SPACE_VERSION, UNTUNED, Point, SearchSpace, Space
from schedenv.tasks import Task, resolve
from schedenv.tasks.programs import is_program_spec

_SAYS_NOTHING = (Status.NOISY, Status.CANCELLED)


@dataclass(frozen=True, eq=False)
class TaskData:
    """Measured points of one task.

    Attributes:
        task: The task.
        space: A space or sub-space that the points are of.
        points: The points, each once.
        estimates_s: Seconds a call, shape (n,), float64; infinity for a point that failed.
        best_s: The best time of the task if these are only a part of its points; None if they
            are all.
    """

    task: Task
    space: SearchSpace
    points: tuple[Point, ...]
    estimates_s: npt.NDArray[np.float64]
    best_s: float | None = None

    @classmethod
    def of(cls, task: Task, space: SearchSpace, results: Iterable[Result]) -> TaskData:
        """Data from results.

        A failure is kept as one. Left out are the untuned program and results that say nothing
        about their point (noisy, cancelled).
        """
        times: dict[Point, float] = {}
        for result in results:
            if result.point != UNTUNED and result.status not in _SAYS_NOTHING:
                times[result.point] = math.inf if result.estimate_s is None else result.estimate_s
        return cls(task, space, tuple(times), np.array(list(times.values()), dtype=np.float64))

    @property
    def ok(self) -> npt.NDArray[np.bool_]:
        """Which points did not fail, shape (n,)."""
        return np.isfinite(self.estimates_s)

    @property
    def throughputs(self) -> npt.NDArray[np.float32]:
        """Best time of the task over the point's, shape (n,): 1 is best, a failure is 0."""
        best_s = self.estimates_s.min() if self.best_s is None else self.best_s
        if not np.isfinite(best_s):
            return np.zeros(len(self.points), np.float32)
        throughputs: npt.NDArray[np.float32] = (best_s / self.estimates_s).astype(np.float32)
        return throughputs

    def part(self, rows: npt.NDArray[np.intp]) -> TaskData:
        """The points at some positions; throughputs stay relative to the best of all."""
        points = tuple(self.points[row] for row in rows)
        best_s = float(self.estimates_s.min()) if self.best_s is None else self.best_s
        return TaskData(self.task, self.space, points, self.estimates_s[rows], best_s)

    def matches(self, name: str) -> bool:
        """Whether `name` is the task's name, its spec or its family."""
        return name in (self.task.name, self.task.spec, self.task.family)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Measured points of several tasks on one machine.

    Attributes:
        hardware: The machine.
        tasks: One entry a task, tasks that no point worked for left out.
    """

    hardware: Hardware
    tasks: tuple[TaskData, ...]

    @classmethod
    def of(cls, hardware: Hardware, tasks: Iterable[TaskData]) -> TrainingData:
        """Put tasks together; entries of equal tasks are joined, the later result counts.

        Raises:
            InputError: There is no task with a point that worked.
        """
        joined: dict[str, TaskData] = {}
        for entry in tasks:
            key = entry.task.content_hash
            joined[key] = _join(joined[key], entry) if key in joined else entry
        useful = tuple(entry for entry in joined.values() if entry.ok.any())
        if not useful:
            raise InputError(
                "expected results of at least one task, got none that worked; "
                "measure some with: schedenv collect SUITE --points 64 --out DIR"
            )
        return cls(hardware, useful)

    @classmethod
    def from_records(
        cls, records: Iterable[Record], hardware: Hardware, tasks: Sequence[Task] = ()
    ) -> TrainingData:
        """Data from stored records; those of other hardware or space versions are left out.

        Args:
            records: The records.
            hardware: Whose records count.
            tasks: Tasks that a stored name must not be trusted for: programs of files.

        Raises:
            InputError: No record is left, or a task of one cannot be made.
        """
        results: dict[tuple[str, str], list[Result]] = defaultdict(list)
        for record in records:
            if (record.fingerprint, record.space_version) == (hardware.fingerprint, SPACE_VERSION):
                results[record.task_hash, record.task_name].append(record.result)
        given = {task.content_hash: task for task in tasks}
        entries = []
        for (task_hash, name), measured in results.items():
            task = given.get(task_hash) or _resolve(name, task_hash)
            entries.append(TaskData.of(task, Space(task.mod, hardware), measured))
        return cls.of(hardware, entries)

    @classmethod
    def from_tables(cls, tables: Sequence[Table]) -> TrainingData:
        """Data from recorded tables of one machine.

        Raises:
            InputError: There is no table, they are of several machines or of another space
                version, or a task cannot be made.
        """
        machines: Mapping[str, Hardware] = {
            table.info.hardware.fingerprint: table.info.hardware for table in tables
        }
        if len(machines) != 1:
            raise InputError(
                f"expected tables of one machine, got {len(machines)} "
                f"({', '.join(sorted(machines)) or 'no table'}); fit one model for each"
            )
        entries = []
        for table in tables:
            info = table.info
            if info.space_version != SPACE_VERSION:
                raise InputError(
                    f"{table.source or info.task.name} has points of space version "
                    f"{info.space_version}; this schedenv uses version {SPACE_VERSION}. "
                    "Record it again with schedenv record"
                )
            task = _resolve(info.task.spec, info.task.content_hash)
            results = [row.result() for row in table.rows]
            entries.append(TaskData.of(task, table.space(), results))
        return cls.of(next(iter(machines.values())), entries)

    @property
    def count(self) -> int:
        """Points of all tasks, failures included."""
        return sum(len(entry.points) for entry in self.tasks)

    def split(self, held_out: Collection[str]) -> tuple[TrainingData, tuple[TaskData, ...]]:
        """Keep whole tasks away from training.

        Args:
            held_out: Names or specs of tasks, or families (all their tasks).

        Returns:
            The data to train on, and the tasks that were held out.

        Raises:
            UnknownNameError: A name fits no task of the data.
            InputError: Nothing is left to train on.
        """
        for name in held_out:
            if not any(entry.matches(name) for entry in self.tasks):
                known = {n for e in self.tasks for n in (e.task.name, e.task.family)}
                raise UnknownNameError("held-out task or family", name, known)
        kept: list[TaskData] = []
        held: list[TaskData] = []
        for entry in self.tasks:
            (held if any(map(entry.matches, held_out)) else kept).append(entry)
        if not kept:
            raise InputError(
                f"all {len(held)} tasks of the data are held out; expected at least one to train on"
            )
        return TrainingData(self.hardware, tuple(kept)), tuple(held)


def split_points(
    entry: TaskData, fraction: float, rng: np.random.Generator
) -> tuple[TaskData, TaskData]:
    """Split a task's points at random, for early stopping and calibration.

    Args:
        entry: The points.
        fraction: How many of them go into the second part.
        rng: Of the choice.

    Returns:
        The points to learn from and the others; both are all points if there are fewer than 10.
    """
    count = len(entry.points)
    if count < 10:
        return entry, entry
    order = rng.permutation(count)
    cut = max(2, round(count * fraction))
    learned, other = entry.part(np.sort(order[cut:])), entry.part(np.sort(order[:cut]))
    return (learned, other) if learned.ok.any() and other.ok.any() else (entry, entry)


def _join(one: TaskData, other: TaskData) -> TaskData:
    times = dict(zip(one.points, one.estimates_s, strict=True))
    times.update(zip(other.points, other.estimates_s, strict=True))
    # A whole space holds the points of its parts, not the other way round.
    space = other.space if isinstance(other.space, Space) else one.space
    return TaskData(one.task, space, tuple(times), np.array(list(times.values())))


def _resolve(name: str, content_hash: str) -> Task:
    if is_program_spec(name):
        raise InputError(
            f"the results of {name} are of a program in a file, which is not imported just "
            "because a store names it; pass it with --task FILE:NAME"
        )
    task = resolve(name)
    if task.content_hash != content_hash:
        raise InputError(
            f"{name} is another program now (hash {task.content_hash}) than the one that was "
            f"measured (hash {content_hash}); measure it again"
        )
    return task
