"""The text forms of many points at once, put together from those of their knobs' values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from schedenv.space.knob_states import KnobStates, States


class PointTexts:
    """Writes points as `Point.__str__` does."""

    def __init__(self, states: KnobStates) -> None:
        # After the texts of states those of sketches, which every text begins with.
        self._pieces = np.full(len(states.values) + len(states.sketches), "", object)
        most = max(len(sketch.knobs) for sketch in states.sketches)
        # Of each sketch, the columns in the order of the text; past the last one stands state 0.
        self._columns = np.full((len(states.sketches), 1 + most), states.columns, np.intp)
        self._first_sketch = len(states.values)
        for number, sketch in enumerate(states.sketches):
            columns = states.knob_columns(sketch)
            self._columns[number, : 1 + len(columns)] = [0, *columns]
            self._pieces[self._first_sketch + number] = f"{sketch.index}:"
            for knob, column in zip(sketch.knobs, columns, strict=True):
                first, count = states.first[number, column], states.count[number, column]
                comma = "," if knob.start else ""
                self._pieces[first : first + count] = [
                    comma + ",".join(map(str, value))
                    for value in states.values[first : first + count, : knob.width].tolist()
                ]

    def of(self, points: States) -> npt.NDArray[Any]:
        """The texts, shape (n,), a new array of objects."""
        padded = np.zeros((len(points), points.shape[1] + 1), points.dtype)
        padded[:, :-1] = points
        padded[:, 0] += self._first_sketch
        pieces = np.take_along_axis(padded, self._columns.take(points[:, 0], axis=0), axis=1)
        texts = np.empty(len(points), object)
        texts[:] = list(map("".join, self._pieces.take(pieces).tolist()))
        return texts
