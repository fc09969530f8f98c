"""Recorded tables for many environments at once: a step is a look-up.

A table has some thousand points, so where every action leads is worked out once. Points are then
their numbers, those of all tables one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schedenv.envs.actions import STOP
from schedenv.envs.batch_actions import BatchActions
from schedenv.envs.batch_observations import BatchObservation, Floats
from schedenv.envs.layout import Layout
from schedenv.envs.vector_source import (
    STATUSES,
    Answers,
    Doubles,
    Landscape,
    Points,
    TaskFacts,
    VectorSource,
)
from schedenv.errors import IllegalPointError
from schedenv.measure.table import Table
from schedenv.space import Point
from schedenv.space.batch import Bools, Indices
from schedenv.space.batch_part import BatchPart

_ROWS_AT_ONCE = 1024
_STAY = -1


class RecordedSource(VectorSource):
    """Answers from recorded tables; every environment stays within the table of its task.

    Args:
        tables: One a task.
        facts: Of each task.
        aliases: Other names of the tasks, with their positions.
        layout: Sizes of the environment's spaces.

    Raises:
        InputError: A table does not fit into the layout.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        facts: Sequence[TaskFacts],
        aliases: dict[str, int],
        layout: Layout,
    ) -> None:
        self.facts, self.aliases = facts, aliases
        self._spaces = [table.space() for table in tables]
        self._rows = [row for table in tables for row in table.rows]
        self._counts = [len(table.rows) for table in tables]
        self._firsts = np.cumsum([0, *self._counts])
        self._answers = Answers(
            np.array([row.estimate_s or np.nan for row in self._rows]),
            np.array([STATUSES.index(row.status) for row in self._rows], np.int8),
            np.array([row.phases.total_s for row in self._rows]),
        )
        self._texts = np.array([str(row.point) for row in self._rows], object)
        self._reasons = np.array([row.reason for row in self._rows], object)
        seen, successors = [], []
        for space, of_task, first in zip(self._spaces, facts, self._firsts, strict=False):
            layout.check(space, of_task.name)
            batch = BatchPart(space)
            seen.append(BatchObservation(batch, layout).build(batch.index.rows))
            found = successor_table(batch, BatchActions(batch, layout))
            successors.append(np.where(found == _STAY, _STAY, found + first))
        self._knobs, self._knob_mask, self._sketch = (
            np.concatenate(part) for part in zip(*seen, strict=True)
        )
        # Stepping reads one number of a line, masking a whole line: two tables, each for its use.
        self._successors = np.concatenate(successors).astype(np.int32)
        self._legal = self._successors != _STAY
        self._legal[:, STOP] = True

    def draw(self, tasks: Indices, rngs: Sequence[np.random.Generator]) -> Points:
        """A random point of each task; the one that `SubSpace.sample` draws."""
        pairs = zip(tasks.tolist(), rngs, strict=True)
        numbers = [self._firsts[task] + rng.integers(self._counts[task]) for task, rng in pairs]
        return np.array(numbers, np.int32)

    def parse(self, task: int, text: str) -> Points:
        """The number of a named point; see `VectorSource`."""
        point = Point.parse(text)
        reason = self._spaces[task].explain_illegal(point)
        if reason is not None:
            raise IllegalPointError(f"{point} is not a point of {self.facts[task].name}: {reason}")
        return np.array([self._firsts[task] + self._spaces[task].points().index(point)], np.int32)

    def move(self, points: Points, actions: Indices) -> tuple[Points, Bools]:
        """Where actions lead; see `VectorSource`."""
        there = self._successors[points, actions]
        legal = there != _STAY
        return np.where(legal, there, points), legal

    def masks(self, points: Points) -> Bools:
        """Which actions are legal; see `VectorSource`."""
        legal: Bools = self._legal.take(points, axis=0)
        return legal

    def evaluate(self, points: Points) -> Answers:
        """What was recorded."""
        known = self._answers
        return Answers(known.seconds[points], known.status[points], known.spent_s[points])

    def observe(self, points: Points) -> tuple[Floats, Floats, Floats]:
        """What the points look like; see `VectorSource`."""
        return (
            self._knobs.take(points, axis=0),
            self._knob_mask.take(points, axis=0),
            self._sketch.take(points, axis=0),
        )

    def texts(self, points: Points) -> npt.NDArray[Any]:
        """The points' text forms."""
        return self._texts[points]

    def reasons(self, points: Points) -> npt.NDArray[Any]:
        """Why points failed when they were recorded."""
        return self._reasons[points]

    def describe(self, point: Points) -> str:
        """The knobs of a point."""
        task = int(np.searchsorted(self._firsts, point[0], side="right")) - 1
        return self._spaces[task].describe(self._rows[int(point[0])].point)

    def landscape(self, task: int) -> Landscape:
        """A table without episodes; see `VectorSource`."""
        space = self._spaces[task]
        numbers = {point: n for n, point in enumerate(space.points(), int(self._firsts[task]))}

        def seconds(points: Sequence[Point]) -> Doubles:
            found = self._answers.seconds[[numbers[point] for point in points]]
            return np.where(np.isnan(found), np.inf, found)

        return Landscape(self.facts[task], space, seconds)


def successor_table(batch: BatchPart, actions: BatchActions) -> npt.NDArray[np.int32]:
    """Where every action leads from every point of a sub-space.

    Returns:
        int32, shape (points, actions): the position of the point there, -1 where the action is
        illegal, and in the column of STOP.
    """
    rows = batch.index.rows
    table = np.full((len(rows), actions.count), _STAY, np.int32)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        lines, numbers, moved = actions.legal_moves(rows[first : first + _ROWS_AT_ONCE])
        table[first + lines, numbers] = batch.index.find(moved)
    return table
