"""Points as features that mean the same in every space, many at once and without TVM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schedenv.space import ChoiceKnob, LocationKnob, Point, SearchSpace, Sketch, TileKnob

from ..coordinates import Floats, Rows, SketchCoordinates

_SPATIAL = (0, 1, 3, 5)
_REDUCTION = (2, 4)
_NEST = 6
_ROLES = ("unroll", "parallel", "vectorize")

SHARED = 2 * _NEST + 2 + 3 + len(_ROLES)
"""Features that mean the same in every space: log2 of the product of all factors at each place of
the loop nest S0 S1 R0 S2 R1 S3; the same of the last spatial tile alone; of all spatial and of all
reduction extents; blocks inlined, at the root, and the sum of the loops that others are under; for
each annotation log2 of one more than its value."""


class Encoding:
    """What the policy sees of points.

    Args:
        space: The space.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._sketches = [_SketchEncoding(sketch, space.width) for sketch in space.sketches]

    def of(self, points: Sequence[Point]) -> Floats:
        """Features that mean the same in every space, shape (n, `SHARED`)."""
        rows = self._space.encode(points)
        out = np.zeros((len(rows), SHARED))
        for index in set(rows[:, 0].tolist()):
            chosen = np.flatnonzero(rows[:, 0] == index)
            out[chosen] = self._sketches[index].of(rows[chosen])
        return out


class _SketchEncoding:
    """Where the values of one sketch go: the features are linear in its coordinates."""

    def __init__(self, sketch: Sketch, width: int) -> None:
        self._coordinates = SketchCoordinates(sketch, width)
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
                self._locations.append(knob.start)
            else:
                self._add_choice(knob)

    def of(self, rows: Rows) -> Floats:
        out: Floats = self._coordinates.of(rows) @ self._to_shared + self._constant
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
        places = _REDUCTION if tile.is_reduction else _SPATIAL
        # A deeper tiling than MetaSchedule's has its outer levels at the outermost place.
        for slot, level in zip(range(tile.width - 1, -1, -1), range(tile.width), strict=True):
            place = places[max(0, len(places) - 1 - level)]
            self._to_shared[tile.start + slot, place] = 1.0
            if is_last:
                self._to_shared[tile.start + slot, _NEST + place] = 1.0
        self._constant[2 * _NEST + tile.is_reduction] += np.log2(tile.extent)

    def _add_choice(self, knob: ChoiceKnob) -> None:
        entry = SHARED - len(_ROLES) + _ROLES.index(knob.role)
        amounts = np.log2(1.0 + np.array(knob.choices, dtype=float))
        self._annotations.append((knob.start, entry, amounts))
