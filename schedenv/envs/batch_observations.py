"""The knob part of observations for many points at once; `KnobObservation` says what it means."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from schedenv.envs.layout import Layout
from schedenv.space import ChoiceKnob, Sketch, TileKnob
from schedenv.space.batch import BatchSpace, Rows
from schedenv.space.knobs import INLINE

LOG_SCALE = 1.0 / 20.0
LOCATION_SCALE = 40
"""As in `schedenv.envs.observations`; a test holds the two together."""

Floats = npt.NDArray[np.float32]


class BatchObservation:
    """Maps rows to the keys `knobs`, `knob_mask` and `sketch`, for one space and one layout."""

    def __init__(self, batch: BatchSpace, layout: Layout) -> None:
        sketches = batch.space.sketches
        shape = (len(sketches), layout.slots)
        self._factors = batch.factors
        logs = [math.log2(factor) * LOG_SCALE for factor in batch.factors.known]
        self._logs = np.minimum(np.array(logs), 1.0).astype(np.float32)
        # By sketch and entry: the column of a row, whether it holds a tile's factor, and for
        # other knobs what to add and to divide by.
        self._column = np.zeros(shape, np.intp)
        self._is_factor = np.zeros(shape, np.bool_)
        self._offset = np.zeros(shape)
        self._range = np.ones(shape)
        for sketch in sketches:
            self._read(sketch, dict(layout.positions(sketch)))
        self._mask = (self._column > 0).astype(np.float32)
        self._one_hot = np.eye(len(sketches), layout.sketches, dtype=np.float32)

    def build(self, rows: Rows) -> tuple[Floats, Floats, Floats]:
        """The knobs, their mask and the sketch of each row.

        Returns:
            float32 arrays of shapes (n, slots), (n, slots) and (n, sketches).
        """
        sketch = rows[:, 0]
        mask = self._mask[sketch]
        values = np.take_along_axis(rows, self._column[sketch], axis=1)
        others = np.minimum((values + self._offset[sketch]) / self._range[sketch], 1.0)
        logs = self._logs[self._factors.find(values)]
        knobs = np.where(self._is_factor[sketch], logs, others.astype(np.float32)) * mask
        return knobs, mask, self._one_hot[sketch]

    def _read(self, sketch: Sketch, entry_of: dict[int, int]) -> None:
        for knob in sketch.knobs:
            for slot in range(knob.start, knob.start + knob.width):
                at = sketch.index, entry_of[slot]
                self._column[at] = 1 + slot
                self._is_factor[at] = isinstance(knob, TileKnob)
                if isinstance(knob, ChoiceKnob):
                    self._range[at] = len(knob.choices) - 1
                elif not isinstance(knob, TileKnob):
                    self._offset[at], self._range[at] = -INLINE, LOCATION_SCALE
