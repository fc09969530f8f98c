"""The knob part of observations of points as knob states; `KnobObservation` says what it means."""

from __future__ import annotations

import numpy as np

from schedenv.envs.batch_observations import LOCATION_SCALE, LOG_SCALE, Floats
from schedenv.envs.layout import Layout
from schedenv.space.knob_states import KnobStates, States
from schedenv.space.knobs import INLINE, ChoiceKnob, TileKnob


class StateObservation:
    """Maps points to the keys `knobs`, `knob_mask` and `sketch`, for all spaces at once."""

    def __init__(self, states: KnobStates, layout: Layout) -> None:
        self._states = states
        self._slots, self._levels = layout.slots, layout.levels
        self._first_choice = layout.tiles * layout.levels
        self._seen = np.zeros((len(states.values), layout.levels), np.float32)
        self._mask = np.zeros((len(states.sketches), layout.slots), np.float32)
        for number, sketch in enumerate(states.sketches):
            self._mask[number, [entry for _, entry in layout.positions(sketch)]] = 1.0
            for knob, column in zip(sketch.knobs, states.knob_columns(sketch), strict=True):
                first, count = states.first[number, column], states.count[number, column]
                values = states.values[first : first + count]
                if isinstance(knob, TileKnob):
                    scaled = np.log2(values) * LOG_SCALE
                elif isinstance(knob, ChoiceKnob):
                    scaled = values / (len(knob.choices) - 1)
                else:
                    scaled = (values - INLINE) / LOCATION_SCALE
                seen = np.minimum(scaled[:, : knob.width], 1.0)
                self._seen[first : first + count, : knob.width] = seen
        own = np.arange(len(states.sketches)) - states.first_sketch[states.space_of]
        self._one_hot = np.eye(layout.sketches, dtype=np.float32)[own]

    def build(self, points: States) -> tuple[Floats, Floats, Floats]:
        """The knobs, their mask and the sketch of each point.

        Returns:
            float32 arrays of shapes (n, slots), (n, slots) and (n, sketches).
        """
        states, sketches = self._states, points[:, 0]
        knobs = np.zeros((len(points), self._slots), np.float32)
        tiles = self._seen.take(points[:, states.tiles], axis=0).reshape(len(points), -1)
        knobs[:, : tiles.shape[1]] = tiles
        # Annotations and locations have one entry each, and stand in the layout's order.
        others = self._seen[points[:, states.choices.start :], 0]
        knobs[:, self._first_choice : self._first_choice + others.shape[1]] = others
        return knobs, self._mask.take(sketches, axis=0), self._one_hot.take(sketches, axis=0)
