"""Points as coordinates in which near points have similar times, many at once and without TVM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schedenv.space import LocationKnob, Point, SearchSpace, Sketch, TileKnob

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int32]
Numbers = npt.NDArray[np.intp]

_SPATIAL = ("S0", "S1", "S2", "S3")
_REDUCTION = ("R0", "R1")
_LAST = "last S3"
ROLES = ("sketch", *_SPATIAL, _LAST, *_REDUCTION, "location", "unroll", "parallel", "vectorize")
"""What a coordinate may be of: the sketch; the levels of spatial and of reduction tiles in the loop
nest S0 S1 R0 S2 R1 S3, the innermost of the last axis apart; a compute location; annotations."""

_SKETCH_DISTANCE = 1.0
_CHOICE_RANGE = 3.0
_LOCATION_STEP = 0.5


class Coordinates:
    """log2 of every factor, the position of every choice in its list, compute locations by loop.

    Points of different sketches are far from each other.

    Args:
        space: The points.
        scales: How much a step of each of `ROLES` matters, shape (roles,); None for equally.
    """

    def __init__(self, space: SearchSpace, scales: Floats | None = None) -> None:
        self._space, self._scales = space, scales
        self._sketches = [SketchCoordinates(sketch, space.width) for sketch in space.sketches]

    def of(self, points: Sequence[Point]) -> Floats:
        """Coordinates of points, shape (n, sketches + width)."""
        rows, first = self._space.encode(points), len(self._sketches)
        out = np.zeros((len(rows), first + self._space.width))
        out[np.arange(len(rows)), rows[:, 0]] = _SKETCH_DISTANCE
        for index in set(rows[:, 0].tolist()):
            chosen = np.flatnonzero(rows[:, 0] == index)
            out[chosen, first:] = self._sketches[index].of(rows[chosen])
        return out if self._scales is None else out * self._scales[self.roles(points)]

    def roles(self, points: Sequence[Point]) -> Numbers:
        """Which of `ROLES` every coordinate is of, shape (n, sketches + width)."""
        first = len(self._sketches)
        out = np.zeros((len(points), first + self._space.width), np.intp)
        for row, point in zip(out, points, strict=True):
            row[first:] = self._sketches[point.sketch].roles
        return out


class SketchCoordinates:
    """Of the values of one sketch, without saying which.

    Args:
        sketch: The sketch.
        width: Slots of the space's widest sketch.

    Attributes:
        roles: Which of `ROLES` each slot is of, shape (width,); 0 for slots that it has not.
    """

    def __init__(self, sketch: Sketch, width: int) -> None:
        self._tiles = np.zeros(width, bool)
        self._scale = np.zeros(width)
        self.roles = np.zeros(width, np.intp)
        last = next((t for t in reversed(list(sketch.tiles())) if not t.is_reduction), None)
        for knob in sketch.knobs:
            slots = slice(knob.start, knob.start + knob.width)
            if isinstance(knob, TileKnob):
                self._tiles[slots], self._scale[slots] = True, 1.0
                self.roles[slots] = [ROLES.index(name) for name in _levels(knob)]
                if knob is last:
                    self.roles[knob.start + knob.width - 1] = ROLES.index(_LAST)
            elif isinstance(knob, LocationKnob):
                self._scale[slots], self.roles[slots] = _LOCATION_STEP, ROLES.index("location")
            else:
                self._scale[slots] = _CHOICE_RANGE / max(1, len(knob.choices) - 1)
                self.roles[slots] = ROLES.index(knob.role)

    def of(self, rows: Rows) -> Floats:
        """Coordinates of rows of `SearchSpace.encode`, shape (n, width)."""
        values = rows[:, 1:].astype(float)
        values[:, self._tiles] = np.log2(np.maximum(values[:, self._tiles], 1.0))
        scaled: Floats = values * self._scale
        return scaled


def _levels(tile: TileKnob) -> list[str]:
    """The place of each slot in the loop nest; a deeper tiling's outer levels are at the first."""
    places = _REDUCTION if tile.is_reduction else _SPATIAL
    return [places[max(0, len(places) - tile.width + slot)] for slot in range(tile.width)]
