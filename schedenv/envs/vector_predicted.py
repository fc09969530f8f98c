"""Predicted rewards for many environments at once: knob states of whole spaces and a cost model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from schedenv.costmodel.tabulated import SumsOverKnobs, TabulatedScores
from schedenv.envs.batch_observations import Floats
from schedenv.envs.layout import Layout
from schedenv.envs.rewards import MOST_LOG_SPEEDUP
from schedenv.envs.state_actions import StateActions
from schedenv.envs.state_observations import StateObservation
from schedenv.envs.vector_source import (
    OK,
    Answers,
    Doubles,
    Landscape,
    Points,
    TaskFacts,
    VectorSource,
)
from schedenv.errors import IllegalPointError, ModelOutputError
from schedenv.space import Point, SearchSpace, Space
from schedenv.space.batch import Bools, Indices
from schedenv.space.knob_states import KnobStates
from schedenv.space.point_texts import PointTexts
from schedenv.tasks import Task


class RowPredictor(Protocol):
    """What is asked of a cost model: scores of rows, without a loop over points."""

    def predict_rows(
        self, task: Task, space: SearchSpace, rows: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        """Scores, shape (n,), higher is faster; differences are natural-log speed-ups."""
        ...


class PredictedSource(VectorSource):
    """Asks a cost model; points are knob states, see `schedenv.space.knob_states`.

    A model that adds up over knobs (`schedenv.costmodel.tabulated`) is tabulated once, which makes
    its scores differ from `predict_rows` by the rounding of float32; another one is asked about
    rows.

    A cost model knows speed-ups and no times, so times are relative: the plainest point of a
    task's space (`SearchSpace.default`) takes one unit.

    Args:
        tasks: The tasks.
        spaces: Of each task.
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
        spaces: Sequence[Space],
        facts: Sequence[TaskFacts],
        model: RowPredictor,
        name: str,
        layout: Layout,
    ) -> None:
        self.facts = facts
        self.aliases = {task.name: n for n, task in reversed(list(enumerate(tasks)))}
        self._tasks, self._spaces, self._model, self._name = tasks, spaces, model, name
        for space, of_task in zip(spaces, facts, strict=True):
            layout.check(space, of_task.name)
        self._states = KnobStates(spaces)
        self._actions = StateActions(self._states, layout)
        self._observe = StateObservation(self._states, layout)
        self._texts = PointTexts(self._states)
        self._tabulated = (
            TabulatedScores(model, tasks, self._states)
            if isinstance(model, SumsOverKnobs)
            else None
        )
        self._origin = np.array(
            [
                self._scores(self._states.points(n, space.encode([space.default()])))[0]
                for n, space in enumerate(spaces)
            ]
        )

    def draw(self, tasks: Indices, rngs: Sequence[np.random.Generator]) -> Points:
        """A random point of each task, distributed as `SearchSpace.sample` draws it.

        The seed gives another point than it gives to `SearchSpace.sample`.
        """
        return self._states.sample(tasks, rngs)

    def parse(self, task: int, text: str) -> Points:
        """The states of a named point; see `VectorSource`."""
        point = Point.parse(text)
        reason = self._spaces[task].explain_illegal(point)
        if reason is not None:
            raise IllegalPointError(f"{point} is not a point of {self.facts[task].name}: {reason}")
        return self._states.points(task, self._spaces[task].encode([point]))

    def move(self, points: Points, actions: Indices) -> tuple[Points, Bools]:
        """Where actions lead; see `VectorSource`."""
        return self._actions.apply(points, actions)

    def masks(self, points: Points) -> Bools:
        """Which actions are legal; see `VectorSource`."""
        return self._actions.mask(points)

    def evaluate(self, points: Points) -> Answers:
        """What the model says, in units of the plainest point.

        Raises:
            ModelOutputError: An answer is not finite, or no log speed-up.
        """
        gains = self._scores(points) - self._origin[self._states.space_of[points[:, 0]]]
        extreme = np.abs(gains) > MOST_LOG_SPEEDUP
        if extreme.any():
            worst = int(extreme.argmax())
            task = int(self._states.space_of[points[worst, 0]])
            raise ModelOutputError(
                f"the cost model {self._name} gave {self.texts(points[worst : worst + 1])[0]} of "
                f"{self._tasks[task].name} a log speed-up of {gains[worst]:.3g} over the plainest "
                f"point; expected at most {MOST_LOG_SPEEDUP:g} either way: scores must estimate "
                "natural logarithms of speed-ups; fit it again"
            )
        return Answers(np.exp(-gains), np.full(len(points), OK, np.int8), np.zeros(len(points)))

    def observe(self, points: Points) -> tuple[Floats, Floats, Floats]:
        """What the points look like; see `VectorSource`."""
        return self._observe.build(points)

    def texts(self, points: Points) -> npt.NDArray[Any]:
        """The points' text forms."""
        return self._texts.of(points)

    def reasons(self, points: Points) -> npt.NDArray[Any]:
        """Nothing: a prediction does not fail."""
        return np.full(len(points), None, object)

    def describe(self, point: Points) -> str:
        """The knobs of a point."""
        task = int(self._states.space_of[point[0, 0]])
        (decoded,) = self._spaces[task].decode(self._states.rows(task, point))
        return self._spaces[task].describe(decoded)

    def landscape(self, task: int) -> Landscape:
        """A space and the model's predictions; see `VectorSource`."""
        space = self._spaces[task]

        def seconds(points: Sequence[Point]) -> Doubles:
            return self.evaluate(self._states.points(task, space.encode(points))).seconds

        return Landscape(self.facts[task], space, seconds)

    def _scores(self, points: Points) -> Doubles:
        if self._tabulated is not None:
            scores = self._tabulated.scores(points).astype(np.float64)
            self._check(scores, points)
            return scores
        scores = np.empty(len(points))
        tasks = self._states.space_of[points[:, 0]]
        for task in np.unique(tasks).tolist():
            at = np.flatnonzero(tasks == task)
            rows = self._states.rows(task, points[at])
            answer = self._model.predict_rows(self._tasks[task], self._spaces[task], rows)
            found = np.asarray(answer, np.float64)
            self._check(found, points[at])
            scores[at] = found
        return scores

    def _check(self, scores: Doubles, points: Points) -> None:
        """Refuse scores that are not one finite number a point, all of one task if they are not."""
        if scores.shape != (len(points),) or not np.isfinite(scores).all():
            task = int(self._states.space_of[points[0, 0]])
            raise ModelOutputError(
                f"the cost model {self._name} gave {np.count_nonzero(~np.isfinite(scores))} scores "
                f"that are not finite, in an answer of shape {scores.shape}, for {len(points)} "
                f"points of {self._tasks[task].name}; expected one finite score each: its training "
                "diverged, or it saw data that is not finite; fit it again"
            )
