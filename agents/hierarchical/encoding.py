"""Points as numbers for the agent's model and for its policy, many at once and without TVM."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schedenv.space import ChoiceKnob, LocationKnob, SearchSpace, Sketch, TileKnob

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int32]

_SPATIAL = (0, 1, 3, 5)
_REDUCTION = (2, 4)
_NEST = 6
_ROLES = ("unroll", "parallel", "vectorize")

SHARED = 2 * _NEST + 2 + 3 + len(_ROLES)
"""Features that mean the same in every space: log2 of the product of all factors at each place of
the loop nest S0 S1 R0 S2 R1 S3; the same of the last spatial tile alone; of all spatial and of all
reduction extents; blocks inlined, at the root, and the sum of the loops that others are under; for
each annotation log2 of one more than its value."""

_SKETCH_DISTANCE = 2.0
_CHOICE_RANGE = 3.0
_LOCATION_STEP = 0.5


class Encoding:
    """Turns rows of `SearchSpace.encode` into features.

    Args:
        space: The space.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._sketches = [_SketchEncoding(sketch, space.width) for sketch in space.sketches]
        self._width = space.width

    def own(self, rows: Rows) -> Floats:
        """Coordinates in which near points have similar times, shape (n, sketches + width).

        log2 of every factor, the position of every choice in its list, compute locations by loop;
        points of different sketches are far from each other.
        """
        out = np.zeros((len(rows), len(self._sketches) + self._width))
        out[np.arange(len(rows)), rows[:, 0]] = _SKETCH_DISTANCE
        for index, chosen in self._by_sketch(rows):
            out[chosen, len(self._sketches) :] = self._sketches[index].coordinates(rows[chosen])
        return out

    def shared(self, rows: Rows) -> Floats:
        """Features that mean the same in every space, shape (n, `SHARED`)."""
        out = np.zeros((len(rows), SHARED))
        for index, chosen in self._by_sketch(rows):
            out[chosen] = self._sketches[index].shared(rows[chosen])
        return out

    def _by_sketch(self, rows: Rows) -> list[tuple[int, npt.NDArray[np.intp]]]:
        return [(int(index), np.flatnonzero(rows[:, 0] == index)) for index in set(rows[:, 0])]


class _SketchEncoding:
    """Where the values of one sketch go: both kinds of features are linear in its coordinates."""

    def __init__(self, sketch: Sketch, width: int) -> None:
        self._tiles = np.zeros(width, bool)
        self._scale = np.zeros(width)
        self._locations: list[int] = []
        self._annotations: list[tuple[int, int, Floats]] = []
        self._to_shared = np.zeros((width, SHARED))
        self._constant = np.zeros(SHARED)
        tiles = list(sketch.tiles())
        last = next((tile for tile in reversed(tiles) if not tile.is_reduction), None)
        for knob in sketch.knobs:
            if isinstance(knob, TileKnob):
                self._add_tile(knob, is_last=knob is last)
            elif isinstance(knob, LocationKnob):
                self._scale[knob.start] = _LOCATION_STEP
                self._locations.append(knob.start)
            else:
                self._add_choice(knob)

    def coordinates(self, rows: Rows) -> Floats:
        values = rows[:, 1:].astype(float)
        values[:, self._tiles] = np.log2(np.maximum(values[:, self._tiles], 1.0))
        scaled: Floats = values * self._scale
        return scaled

    def shared(self, rows: Rows) -> Floats:
        out: Floats = self.coordinates(rows) @ self._to_shared + self._constant
        place = 2 * _NEST + 2
        for start in self._locations:
            values = rows[:, 1 + start]
            out[:, place] += values == -2
            out[:, place + 1] += values == -1
            out[:, place + 2] += np.maximum(values, 0)
        for start, entry, amounts in self._annotations:
            out[:, entry] = amounts[rows[:, 1 + start]]
        return out

    def _add_tile(self, tile: TileKnob, *, is_last: bool) -> None:
        slots = slice(tile.start, tile.start + tile.width)
        self._tiles[slots] = True
        self._scale[slots] = 1.0
        places = _REDUCTION if tile.is_reduction else _SPATIAL
        # A deeper tiling than MetaSchedule's has its outer levels at the outermost place.
        for slot, level in zip(range(tile.width - 1, -1, -1), range(tile.width), strict=True):
            place = places[max(0, len(places) - 1 - level)]
            self._to_shared[tile.start + slot, place] = 1.0
            if is_last:
                self._to_shared[tile.start + slot, _NEST + place] = 1.0
        self._constant[2 * _NEST + tile.is_reduction] += np.log2(tile.extent)

    def _add_choice(self, knob: ChoiceKnob) -> None:
        self._scale[knob.start] = _CHOICE_RANGE / max(1, len(knob.choices) - 1)
        entry = SHARED - len(_ROLES) + _ROLES.index(knob.role)
        amounts = np.log2(1.0 + np.array(knob.choices, dtype=float))
        self._annotations.append((knob.start, entry, amounts))
