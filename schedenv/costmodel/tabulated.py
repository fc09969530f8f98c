"""A cost model whose sum over knobs is tabulated: scores for the price of a look-up and two layers.

What a network on sets adds up for each member (Zaheer et al., Deep Sets, NeurIPS 2017) depends on
that member alone. A knob takes some hundred values at most, so what each of them adds is worked out
once, and the network proper runs on a table of knob values instead of on points.

BLAS adds up the rows of one product in different orders, as processor and place have it. So tables
and weights are rounded to multiples of powers of two such that no sum is rounded: then any order
gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from schedenv.space import SearchSpace
from schedenv.space.knob_states import KnobStates, States
from schedenv.tasks import Task

Rows = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

Doubles = npt.NDArray[np.float64]

_BLOCK = 64
"""Points of one product of matrices: too few for BLAS to wake up threads."""

_DOUBLE_BITS = 53
_SINGLE_BITS = 24


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
        head = model.head()
        units = len(head.weight)
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

        # 53 bits are enough for a product's: a weight's, an input's, and what summing adds.
        bits = _DOUBLE_BITS - _SINGLE_BITS - math.ceil(math.log2(units))
        bound = self._largest_sum(states)
        self._base = _on_grid(self._base, bound, bits).astype(np.float32)
        self._added = _on_grid(self._added, bound, bits).astype(np.float32)
        self._weight = _on_grid(head.weight, float(np.abs(head.weight).max()), _SINGLE_BITS)
        self._bias, self._out = head.bias.astype(float), head.out.astype(float)
        self._offset = float(head.offset)

    def _largest_sum(self, states: KnobStates) -> float:
        """More than any sum over knobs, or part of one, comes to."""
        largest = 0.0
        for number, sketch in enumerate(states.sketches):
            total = np.abs(self._base[number]).astype(float)
            for column in states.knob_columns(sketch):
                first, count = states.first[number, column], states.count[number, column]
                total += np.abs(self._added[first : first + count]).max(axis=0)
            largest = max(largest, float(total.max()))
        return 1.01 * largest

    def scores(self, points: States) -> Floats:
        """The scores of points, shape (n,), float32."""
        sums = self._base.take(points[:, 0], axis=0)
        for column in range(1, points.shape[1]):
            sums += self._added.take(points[:, column], axis=0)
        np.maximum(sums, 0, out=sums)
        inputs = sums.astype(float)
        hidden = np.empty((len(points), len(self._bias)))
        for start in range(0, len(points), _BLOCK):
            block = slice(start, start + _BLOCK)
            np.dot(inputs[block], self._weight, out=hidden[block])
        hidden += self._bias
        np.maximum(hidden, 0, out=hidden)
        hidden *= self._out
        scores: Floats = (hidden.sum(axis=1) + self._offset).astype(np.float32)
        return scores


def _on_grid(values: npt.NDArray[np.floating[Any]], bound: float, bits: int) -> Doubles:
    """Values rounded to the multiples of a power of two of which `bound` is at most 2**bits."""
    step = math.ldexp(1.0, math.frexp(bound)[1] - bits)
    return np.rint(values.astype(float) / step) * step
