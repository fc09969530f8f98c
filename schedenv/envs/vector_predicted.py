"""Predicted rewards for many environments at once: rows of the whole space and a cost model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from schedenv.envs.batch_actions import BatchActions
from schedenv.envs.batch_observations import BatchObservation, Floats
from schedenv.envs.layout import Layout
from schedenv.envs.vector_source import OK, Answers, Doubles, Points, TaskFacts, VectorSource
from schedenv.errors import IllegalPointError, ModelOutputError
from schedenv.space import Point, SearchSpace
from schedenv.space.batch import BatchSpace, Bools, Indices, Rows
from schedenv.space.batching import batch_space
from schedenv.tasks import Task

MOST_LOG_SPEEDUP = 100.0
"""A score further than this from the plainest point's is no logarithm of a speed-up."""


class RowPredictor(Protocol):
    """What is asked of a cost model: scores of rows, without a loop over points."""

    def predict_rows(
        self, task: Task, space: SearchSpace, rows: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        """Scores, shape (n,), higher is faster; differences are natural-log speed-ups."""
        ...


class PredictedSource(VectorSource):
    """Asks a cost model; points are rows, with the number of the task before them.

    A cost model knows speed-ups and no times, so times are relative: the plainest point of a
    task's space (`SearchSpace.default`) takes one unit.

    Args:
        tasks: The tasks.
        spaces: Of each task, the whole space or a part.
        facts: Of each task.
        model: The cost model.
        name: The model's folder, for messages.
        layout: Sizes of the environment's spaces.

    Raises:
        InputError: A task does not fit into the layout.
        ModelOutputError: The model's answer for a plainest point is no finite score.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        spaces: Sequence[SearchSpace],
        facts: Sequence[TaskFacts],
        model: RowPredictor,
        name: str,
        layout: Layout,
    ) -> None:
        self.facts = facts
        self.aliases = {task.name: n for n, task in reversed(list(enumerate(tasks)))}
        self._tasks, self._spaces, self._model, self._name = tasks, spaces, model, name
        self._layout = layout
        self._width = 1 + max(space.width for space in spaces)
        self._batches: list[BatchSpace] = []
        self._actions: list[BatchActions] = []
        self._observe: list[BatchObservation] = []
        for space, of_task in zip(spaces, facts, strict=True):
            layout.check(space, of_task.name)
            batch = batch_space(space)
            self._batches.append(batch)
            self._actions.append(BatchActions(batch, layout))
            self._observe.append(BatchObservation(batch, layout))
        plainest = [space.encode([space.default()]) for space in spaces]
        self._origin = [self._scores(n, rows)[0] for n, rows in enumerate(plainest)]

    def draw(self, tasks: Indices, rngs: Sequence[np.random.Generator]) -> Points:
        """A random point of each task, distributed as `SearchSpace.sample` draws it.

        The seed gives another point than it gives to `SearchSpace.sample`.
        """
        drawn = np.zeros((len(tasks), 1 + self._width), np.int32)
        drawn[:, 0] = tasks
        for task, at in _groups(drawn):
            self._put(drawn, at, self._batches[task].sample([rngs[i] for i in at]))
        return drawn

    def parse(self, task: int, text: str) -> Points:
        """The row of a named point; see `VectorSource`."""
        point = Point.parse(text)
        reason = self._spaces[task].explain_illegal(point)
        if reason is not None:
            raise IllegalPointError(f"{point} is not a point of {self.facts[task].name}: {reason}")
        found = np.zeros((1, 1 + self._width), np.int32)
        found[0, 0] = task
        self._put(found, np.array([0]), self._spaces[task].encode([point]))
        return found

    def move(self, points: Points, actions: Indices) -> tuple[Points, Bools]:
        """Where actions lead; see `VectorSource`."""
        moved, legal = points.copy(), np.zeros(len(points), np.bool_)
        for task, at in _groups(points):
            there, legal[at] = self._actions[task].apply(self._rows(points, task, at), actions[at])
            self._put(moved, at, there)
        return moved, legal

    def masks(self, points: Points) -> Bools:
        """Which actions are legal; see `VectorSource`."""
        masks = np.zeros((len(points), self._actions[0].count), np.bool_)
        for task, at in _groups(points):
            masks[at] = self._actions[task].mask(self._rows(points, task, at))
        return masks

    def evaluate(self, points: Points) -> Answers:
        """What the model says, in units of the plainest point.

        Raises:
            ModelOutputError: An answer is not finite, or no log speed-up.
        """
        gains = np.zeros(len(points))
        for task, at in _groups(points):
            rows = self._rows(points, task, at)
            gains[at] = self._scores(task, rows) - self._origin[task]
            extreme = np.abs(gains[at]) > MOST_LOG_SPEEDUP
            if extreme.any():
                worst = int(extreme.argmax())
                (point,) = self._spaces[task].decode(rows[worst : worst + 1])
                raise ModelOutputError(
                    f"the cost model {self._name} gave {point} of {self._tasks[task].name} a log "
                    f"speed-up of {gains[at][worst]:.3g} over the plainest point; expected at most "
                    f"{MOST_LOG_SPEEDUP:g} either way: scores must estimate natural logarithms of "
                    "speed-ups; fit it again"
                )
        return Answers(np.exp(-gains), np.full(len(points), OK, np.int8), np.zeros(len(points)))

    def observe(self, points: Points) -> tuple[Floats, Floats, Floats]:
        """What the points look like; see `VectorSource`."""
        shape = self._layout.slots, self._layout.slots, self._layout.sketches
        seen = tuple(np.zeros((len(points), size), np.float32) for size in shape)
        for task, at in _groups(points):
            parts = self._observe[task].build(self._rows(points, task, at))
            for whole, part in zip(seen, parts, strict=True):
                whole[at] = part
        return seen[0], seen[1], seen[2]

    def texts(self, points: Points) -> npt.NDArray[Any]:
        """The points' text forms."""
        texts = np.empty(len(points), object)
        for task, at in _groups(points):
            texts[at] = [str(p) for p in self._spaces[task].decode(self._rows(points, task, at))]
        return texts

    def reasons(self, points: Points) -> npt.NDArray[Any]:
        """Nothing: a prediction does not fail."""
        return np.full(len(points), None, object)

    def describe(self, point: Points) -> str:
        """The knobs of a point."""
        space = self._spaces[int(point[0, 0])]
        (decoded,) = space.decode(point[:, 1 : 2 + space.width])
        return space.describe(decoded)

    def _rows(self, points: Points, task: int, at: Indices) -> Rows:
        """The rows, as the task's space encodes them, of some of the points."""
        return points[at, 1 : 2 + self._spaces[task].width]

    def _put(self, points: Points, at: Indices, rows: Rows) -> None:
        points[at, 1 : 1 + rows.shape[1]] = rows

    def _scores(self, task: int, rows: Rows) -> Doubles:
        answer = self._model.predict_rows(self._tasks[task], self._spaces[task], rows)
        scores = np.asarray(answer, np.float64)
        if scores.shape != (len(rows),) or not np.isfinite(scores).all():
            raise ModelOutputError(
                f"the cost model {self._name} gave {np.count_nonzero(~np.isfinite(scores))} scores "
                f"that are not finite, in an answer of shape {scores.shape}, for {len(rows)} "
                f"points of {self._tasks[task].name}; expected one finite score each: its training "
                "diverged, or it saw data that is not finite; fit it again"
            )
        return scores


def _groups(points: Points) -> Iterator[tuple[int, Indices]]:
    """The tasks that occur, each with the positions of its points."""
    tasks = points[:, 0]
    for task in np.unique(tasks):
        yield int(task), np.flatnonzero(tasks == task)
