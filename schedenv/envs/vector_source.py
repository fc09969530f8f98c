"""What the vector environment needs to know of points: where moves lead and what they take."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schedenv.envs.batch_observations import Floats
from schedenv.measure import Status
from schedenv.space import Point, SearchSpace
from schedenv.space.batch import Bools, Indices

Points = npt.NDArray[np.int32]
"""Points as their source numbers or encodes them; the first axis is the environment."""

Doubles = npt.NDArray[np.float64]

STATUSES = tuple(Status)
OK = STATUSES.index(Status.OK)


@dataclass(frozen=True)
class TaskFacts:
    """What is constant in a task.

    Attributes:
        title: What `reset(options={"task": ...})` calls it.
        name: For messages.
        flops: Floating-point operations of one run.
        baseline_s: Seconds a call of the untuned program; 1 where times are relative.
        optimum_s: The known optimum, seconds a call; None if it is not known.
        is_absolute: Whether times are seconds; a cost model knows speed-ups only.
        task: The observation's `task`.
        hardware: The observation's `hardware`.
    """

    title: str
    name: str
    flops: float
    baseline_s: float
    optimum_s: float | None
    is_absolute: bool
    task: Floats
    hardware: Floats


@dataclass(frozen=True)
class Answers:
    """What is known of several points.

    Attributes:
        seconds: Seconds a call (or units of the plainest point), NaN for one that failed, (n,).
        status: Indices into `STATUSES`, int8, (n,).
        spent_s: What evaluating each took when it was recorded; 0 for a prediction, (n,).
    """

    seconds: Doubles
    status: npt.NDArray[np.int8]
    spent_s: Doubles


@dataclass(frozen=True)
class Landscape:
    """A task for those that walk through its space themselves.

    Attributes:
        facts: Of the task.
        space: Its points.
        seconds: What points take, in the unit of `facts.baseline_s`, infinite for one that fails,
            shape (n,).
    """

    facts: TaskFacts
    space: SearchSpace
    seconds: Callable[[Sequence[Point]], Doubles]


class VectorSource(abc.ABC):
    """The points of one or several tasks, and a reward source, for many environments at once.

    Points are arrays whose first axis is the environment; only the source knows what is in them.

    Attributes:
        facts: Of each task.
        aliases: Names by which `reset` may ask for a task, with its position.
    """

    facts: Sequence[TaskFacts]
    aliases: dict[str, int]

    @abc.abstractmethod
    def draw(self, tasks: Indices, rngs: Sequence[np.random.Generator]) -> Points:
        """A random point of each task, each drawn from its own generator."""

    @abc.abstractmethod
    def parse(self, task: int, text: str) -> Points:
        """The point of a text form, shape (1, ...).

        Raises:
            IllegalPointError: It is malformed or not of the task's space.
        """

    @abc.abstractmethod
    def move(self, points: Points, actions: Indices) -> tuple[Points, Bools]:
        """Where actions lead, and which are legal moves; a point stays where one is not."""

    @abc.abstractmethod
    def masks(self, points: Points) -> Bools:
        """Which actions are legal, a new array of shape (n, actions)."""

    @abc.abstractmethod
    def evaluate(self, points: Points) -> Answers:
        """What the points take."""

    @abc.abstractmethod
    def observe(self, points: Points) -> tuple[Floats, Floats, Floats]:
        """New arrays for the keys `knobs`, `knob_mask` and `sketch`."""

    @abc.abstractmethod
    def texts(self, points: Points) -> npt.NDArray[Any]:
        """The points' text forms, a new array of objects."""

    @abc.abstractmethod
    def reasons(self, points: Points) -> npt.NDArray[Any]:
        """Why points failed, an array of objects; None for one that did not."""

    @abc.abstractmethod
    def describe(self, point: Points) -> str:
        """A point, shape (1, ...), as a person would read it."""

    @abc.abstractmethod
    def landscape(self, task: int) -> Landscape:
        """A task, for those that need no episodes."""
