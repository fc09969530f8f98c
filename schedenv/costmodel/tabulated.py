"""A cost model whose sum over knobs is tabulated: scores for the price of a look-up and two layers.

What a network on sets adds up for each member (Zaheer et al., Deep Sets, NeurIPS 2017) depends on
that member alone. A knob takes some hundred values at most, so what each of them adds is worked out
once, and the network proper runs on a table of knob values instead of on points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from schedenv.space import SearchSpace
from schedenv.space.knob_states import KnobStates, States
from schedenv.tasks import Task

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

_BLOCK = 64
"""Points of one product of matrices; always as many, so that BLAS always adds up in one order."""


@dataclass(frozen=True)
class Head:
    """Two layers: from sums over knobs, before their activation, to scores.

    Attributes:
        weight: Of the first layer, shape (inputs, units), float32.
        bias: Its bias, shape (units,).
        out: Weights of the output, shape (units,).
        offset: Its bias.
    """

    weight: Floats
    bias: Floats
    out: Floats
    offset: np.float32

    def scores(self, sums: Floats) -> Floats:
        """The scores of sums over knobs, shape (n, inputs), which are overwritten; shape (n,)."""
        count = len(sums)
        np.maximum(sums, 0, out=sums)
        hidden = np.empty((count, len(self.bias)), np.float32)
        whole = count - count % _BLOCK
        for start in range(0, whole, _BLOCK):
            np.dot(sums[start : start + _BLOCK], self.weight, out=hidden[start : start + _BLOCK])
        if whole < count:
            padded = np.zeros((_BLOCK, sums.shape[1]), np.float32)
            padded[: count - whole] = sums[whole:]
            hidden[whole:] = (padded @ self.weight)[: count - whole]
        hidden += self.bias
        np.maximum(hidden, 0, out=hidden)
        hidden *= self.out
        scores: Floats = hidden.sum(axis=1) + self.offset
        return scores


@runtime_checkable
class SumsOverKnobs(Protocol):
    """A cost model of this form; `schedenv.costmodel.TokenModel` is one."""

    def knob_sums(self, task: Task, space: SearchSpace, rows: Rows) -> npt.NDArray[np.float64]:
        """Sums over the knobs of each row, shape (n, hidden units)."""
        ...

    def head(self) -> Head:
        """What turns sums into scores."""
        ...


class TabulatedScores:
    """Scores of points as knob states, equal to the model's up to the rounding of float32.

    A point's score does not depend on the other points that are asked for, not in its last bit.

    Args:
        model: The model.
        tasks: One a space.
        states: The spaces.
    """

    def __init__(self, model: SumsOverKnobs, tasks: Sequence[Task], states: KnobStates) -> None:
        self._head = model.head()
        units = len(self._head.weight)
        self._base = np.zeros((len(states.sketches), units), np.float32)
        self._added = np.zeros((len(states.values), units), np.float32)
        for number, sketch in enumerate(states.sketches):
            space = int(states.space_of[number])
            plain = np.zeros(1 + states.batches[space].space.width, np.int32)
            plain[0] = sketch.index
            plain[1 : 1 + sketch.width] = sketch.default_values()
            lines = [plain[None]]
            for knob, column in zip(sketch.knobs, states.knob_columns(sketch), strict=True):
                first, count = states.first[number, column], states.count[number, column]
                rows = np.repeat(plain[None], count, axis=0)
                rows[:, 1 + knob.start : 1 + knob.start + knob.width] = states.values[
                    first : first + count, : knob.width
                ]
                lines.append(rows)
            rows = np.concatenate(lines)
            sums = model.knob_sums(tasks[space], states.batches[space].space, rows)
            self._base[number] = sums[0]
            start = 1
            for column in states.knob_columns(sketch):
                first, count = states.first[number, column], states.count[number, column]
                self._added[first : first + count] = sums[start : start + count] - sums[0]
                start += count

    def scores(self, points: States) -> Floats:
        """The scores of points, shape (n,), float32."""
        sums = self._base.take(points[:, 0], axis=0)
        for column in range(1, points.shape[1]):
            sums += self._added.take(points[:, column], axis=0)
        return self._head.scores(sums)
