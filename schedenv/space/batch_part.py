"""The points of a sub-space, many at once: what is inside is looked up by a hash of the row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from schedenv.space.batch import (
    ABSENT,
    BatchSpace,
    Bools,
    Indices,
    Rows,
    copied_slots,
    unchecked_transfer,
)
from schedenv.space.subspace import LOG_SCALE, SubSpace, log_coordinate

_CELLS_AT_ONCE = 1 << 22


class RowIndex:
    """Finds rows among known ones: a hash of the row, a binary search, and a comparison.

    Args:
        rows: The known rows, each once, int32, shape (n, width).

    Attributes:
        rows: The same.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        generator = np.random.default_rng(0)
        while True:
            # Odd multipliers modulo 2**64. `find` compares, so foreign rows may collide.
            drawn = generator.integers(1 << 63, size=rows.shape[1], dtype=np.uint64)
            self._multipliers = drawn * 2 + 1
            hashes = self._hash(rows)
            self._order = np.argsort(hashes)
            self._sorted = hashes[self._order]
            if not (self._sorted[1:] == self._sorted[:-1]).any():
                break

    def find(self, rows: Rows) -> Indices:
        """The position of each row among the known ones, -1 if it is none, shape (n,)."""
        at = np.searchsorted(self._sorted, self._hash(rows))
        found = self._order[np.minimum(at, len(self._order) - 1)]
        return np.where((self.rows[found] == rows).all(axis=1), found, -1)

    def _hash(self, rows: Rows) -> npt.NDArray[np.uint64]:
        return rows.astype(np.uint64) @ self._multipliers


class BatchPart(BatchSpace):
    """A sub-space, many points at once.

    Attributes:
        index: Its points, in their order.
    """

    space: SubSpace

    def __init__(self, space: SubSpace) -> None:
        super().__init__(space)
        self.index = RowIndex(space.encode(space.points()))
        rows = self.index.rows
        self._of_sketch = {
            sketch.index: np.flatnonzero(rows[:, 0] == sketch.index) for sketch in space.sketches
        }
        self._coordinates = cache(self._find_coordinates)
        self._neighbours = cache(self._find_neighbours)

    def is_legal(self, rows: Rows) -> Bools:
        """Whether each row is one of the points."""
        return self.index.find(rows) >= 0

    def admits(self, rows: Rows) -> Bools:
        """Whether each row is one of the points."""
        return self.is_legal(rows)

    def transfer(self, rows: Rows, sketch: int) -> Rows:
        """The closest point of another sketch, the first of several; see `SubSpace.transfer`."""
        moved = np.empty_like(rows)
        for source, at in self.by_sketch(rows):
            slots = copied_slots(self.transfer_tables(source, sketch))
            new = self.space.sketches[sketch]
            wanted = unchecked_transfer(rows[at], sketch, new, slots)
            moved[at] = self._nearest(wanted, sketch) if len(self._of_sketch[sketch]) else wanted
        return moved

    def next_location(self, rows: Rows, location: int, *, up: bool) -> tuple[Rows, Bools]:
        """The next value with which the point is still inside; see `BatchSpace`."""
        neighbour = self._neighbours(location, up)[self.index.find(rows)]
        column = self.tables.location_start[rows[:, 0], location]
        return self.index.rows[neighbour, column], neighbour >= 0

    def sample(self, rngs: Sequence[np.random.Generator]) -> Rows:
        """Draw one point from each generator, the one that `SubSpace.sample` draws."""
        return self.index.rows[[int(rng.integers(len(self.index.rows))) for rng in rngs]]

    def _nearest(self, wanted: Rows, sketch: int) -> Rows:
        there = self._of_sketch[sketch]
        known, asked = self._coordinates(sketch), self._scale(wanted, sketch)
        # Distances of all to all, a block of rows at a time.
        block = max(1, _CELLS_AT_ONCE // known.size)
        nearest = [
            np.abs(known[None] - asked[start : start + block, None]).sum(axis=2).argmin(axis=1)
            for start in range(0, len(asked), block)
        ]
        found: Rows = self.index.rows[there[np.concatenate(nearest)]]
        return found

    def _find_coordinates(self, sketch: int) -> npt.NDArray[np.int64]:
        return self._scale(self.index.rows[self._of_sketch[sketch]], sketch)

    def _scale(self, rows: Rows, sketch: int) -> npt.NDArray[np.int64]:
        """What `schedenv.space.subspace.coordinates` gives, for every row."""
        new = self.space.sketches[sketch]
        scaled = rows[:, 1 : 1 + new.width].astype(np.int64)
        factors = np.zeros(new.width, np.bool_)
        for tile in new.tiles():
            factors[tile.start : tile.start + tile.width] = True
        distinct, inverse = np.unique(scaled[:, factors], return_inverse=True)
        logs = np.array([log_coordinate(int(factor)) for factor in distinct], np.int64)
        scaled *= LOG_SCALE
        scaled[:, factors] = logs[inverse].reshape(len(rows), int(factors.sum()))
        return scaled

    def _find_neighbours(self, location: int, up: bool) -> Indices:
        """For each point, the one with the next value of a location and all else equal, or -1."""
        found = np.full(len(self.index.rows), -1)
        for sketch, at in self._of_sketch.items():
            column = self.tables.location_start[sketch, location]
            if column == ABSENT or not len(at):
                continue
            rows = self.index.rows[at]
            others = np.delete(rows, column, axis=1)
            order = np.lexsort((rows[:, column], *others.T))
            same = (others[order[1:]] == others[order[:-1]]).all(axis=1)
            low, high = at[order[:-1][same]], at[order[1:][same]]
            if up:
                found[low] = high
            else:
                found[high] = low
        return found
