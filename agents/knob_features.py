"""What is known of a program from its knobs alone: tiles, and the loops that they make together.

A program is neither built nor lowered for it, so that a model on these numbers looks at thousands
of points in the time that the measurement of one takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schedenv.space import Point, SearchSpace, Sketch, TileKnob

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int32]

_SPATIAL_LEVELS = 4
_REDUCTION_LEVELS = 2


class KnobFeatures:
    """Features of a space's points.

    Args:
        space: The points.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._sketches = [_SketchFeatures(sketch) for sketch in space.sketches]
        any_row = np.zeros((1, space.width), np.int32)
        self._width = 1 + max(sketch.of(any_row).shape[1] for sketch in self._sketches)

    def of(self, points: Sequence[Point]) -> Floats:
        """The sketch, what is known of its points, and a padding of zeros; shape (n, width)."""
        rows = self._space.encode(points)
        out = np.zeros((len(rows), self._width))
        out[:, 0] = rows[:, 0]
        for index in set(rows[:, 0].tolist()):
            chosen = np.flatnonzero(rows[:, 0] == index)
            features = self._sketches[index].of(rows[chosen, 1:])
            out[chosen, 1 : 1 + features.shape[1]] = features
        return out


class _SketchFeatures:
    """Of the points of one sketch. Sizes are log2, levels are numbered from outside."""

    def __init__(self, sketch: Sketch) -> None:
        self._spatial = [tile for tile in sketch.tiles() if not tile.is_reduction]
        self._reductions = [tile for tile in sketch.tiles() if tile.is_reduction]
        self._choices = [
            (choice, np.log2(1.0 + np.array(choice.choices))) for choice in sketch.choices()
        ]
        self._locations = [location.start for location in sketch.locations()]

    def of(self, rows: Rows) -> Floats:
        """Features of rows of values, shape (n, features)."""
        spatial = [_levels(tile, rows, _SPATIAL_LEVELS) for tile in self._spatial]
        reductions = [_levels(tile, rows, _REDUCTION_LEVELS) for tile in self._reductions]
        # What one iteration of the loop outside of a level covers of its axis.
        covered = [np.cumsum(sizes[:, ::-1], axis=1)[:, ::-1] for sizes in spatial]
        tile = sum(covered, np.zeros((len(rows), _SPATIAL_LEVELS)))
        reduced = sum(reductions, np.zeros((len(rows), _REDUCTION_LEVELS)))
        innermost = tile[:, 3] + reduced[:, 1]
        columns = [*spatial, *covered, *reductions, tile, reduced]
        columns += [_column(innermost), _column(tile[:, 2] + reduced[:, 1])]
        columns += [_column(tile[:, 2] + reduced.sum(axis=1))]
        if spatial:
            # Rows of vectors in the register tile.
            columns.append(_column(tile[:, 3] - spatial[-1][:, 3]))
        for choice, amounts in self._choices:
            amount = amounts[rows[:, choice.start]]
            columns.append(_column(amount))
            if choice.role == "unroll":
                columns.append(_column(amount - innermost))
        columns += [_column(rows[:, start].astype(float)) for start in self._locations]
        return np.concatenate(columns, axis=1)


def _levels(tile: TileKnob, rows: Rows, levels: int) -> Floats:
    """Sizes of a tile's innermost levels, 0 for those that it has not, shape (n, levels)."""
    sizes = np.zeros((len(rows), levels))
    kept = min(tile.width, levels)
    factors = rows[:, tile.start + tile.width - kept : tile.start + tile.width]
    sizes[:, levels - kept :] = np.log2(np.maximum(factors, 1))
    return sizes


def _column(values: Floats) -> Floats:
    return values[:, np.newaxis]
