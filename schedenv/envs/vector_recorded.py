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
from schedenv.envs.vector_source import STATUSES, Points, TaskFacts, VectorSource
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
        layout: Sizes of the environment's spaces.
    """

    def __init__(self, tables: Sequence[Table], facts: Sequence[TaskFacts], layout: Layout) -> None:
        self.facts = facts
        self._tables = tables
        self._rows = [row for table in tables for row in table.rows]
        self._counts = [len(table.rows) for table in tables]
        self._firsts = np.cumsum([0, *self._counts])
        self._seconds = np.array([row.estimate_s or np.nan for row in self._rows])
        self._status = np.array([STATUSES.index(row.status) for row in self._rows], np.int8)
        self._texts = np.array([str(row.point) for row in self._rows], object)
        seen, successors = [], []
        for table, facts_of, first in zip(tables, facts, self._firsts, strict=False):
            space = table.space()
            layout.check(space, facts_of.name)
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
        reason = self._tables[task].space().explain_illegal(point)
        if reason is not None:
            raise IllegalPointError(f"{point} is not a point of {self.facts[task].name}: {reason}")
        number = next(n for n, row in enumerate(self._tables[task].rows) if row.point == point)
        return np.array([self._firsts[task] + number], np.int32)

    def move(self, points: Points, actions: Indices) -> tuple[Points, Bools]:
        """Where actions lead; see `VectorSource`."""
        there = self._successors[points, actions]
        legal = there != _STAY
        return np.where(legal, there, points), legal

    def masks(self, points: Points) -> Bools:
        """Which actions are legal; see `VectorSource`."""
        legal: Bools = self._legal.take(points, axis=0)
        return legal

    def evaluate(self, points: Points) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int8]]:
        """The recorded estimates; see `VectorSource`."""
        return self._seconds[points], self._status[points]

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

    def reason(self, point: Points) -> str:
        """Why a point failed when it was recorded."""
        row = self._rows[int(point[0])]
        return f"{row.status.value}, {row.reason}"

    def describe(self, point: Points) -> str:
        """The knobs of a point."""
        task = int(np.searchsorted(self._firsts, point[0], side="right")) - 1
        return self._tables[task].space().describe(self._rows[int(point[0])].point)


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
