"""Compute locations of many points at once.

Which candidates a location has depends on where earlier blocks went and on which tile factors are
1 (see `schedenv.space.locations`). Where TVM's rule decides, it is evaluated here in numpy, from a
table of the consumer's loops for each place of the earlier blocks. Elsewhere the candidates are
remembered by the pattern of unit loops. TVM is asked the first time that a place of the earlier
blocks, or such a pattern, occurs, and never again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schedenv.errors import InputError
from schedenv.space.batch import Bools, Rows
from schedenv.space.knobs import INLINE, ROOT, LocationKnob
from schedenv.space.point import Point
from schedenv.space.space import Space

Bits = npt.NDArray[np.int64]
"""Sets of candidates: bit v - INLINE stands for the value v."""

MOST_LOOPS = 48


class Memo:
    """A map from int64 keys to int64 values, looked up for whole arrays."""

    def __init__(self) -> None:
        self._keys = np.empty(0, np.int64)
        self._values = np.empty(0, np.int64)

    def find(self, keys: Bits) -> tuple[Bits, Bools]:
        """The values, and which keys are known."""
        if not len(self._keys):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return self._values[at], self._keys[at] == keys

    def add(self, keys: Bits, values: Bits) -> None:
        """Learn keys that are not known, each once."""
        keys, values = np.append(self._keys, keys), np.append(self._values, values)
        order = np.argsort(keys)
        self._keys, self._values = keys[order], values[order]


class _KnobLocations:
    """The candidates of one compute location of one sketch."""

    def __init__(self, space: Space, sketch: int, knob: LocationKnob) -> None:
        self._space, self._sketch, self._knob = space, sketch, knob
        whole = space.sketches[sketch]
        self._earlier = [
            1 + other.start for other in whole.locations() if other.instruction < knob.instruction
        ]
        self._tile_columns = np.array(
            [1 + slot for t in whole.tiles() for slot in range(t.start, t.start + t.width)], np.intp
        )
        if len(self._tile_columns) > MOST_LOOPS or len(self._earlier) * 6 > 62:
            raise InputError(
                f"expected a sketch of at most {MOST_LOOPS} tiled loops and 10 compute locations, "
                f"got {len(self._tile_columns)} and {len(self._earlier) + 1}; step this task in "
                "single environments: gymnasium.make"
            )
        self._places = Memo()
        self._patterns = Memo()
        self._has_rule: list[bool] = []
        self._fixed: list[int] = []
        # Of each known place: the column of each loop of the consumer (0 after the last one, where
        # the sketch's number stands in a row), whether it is a reduction, the last that is none.
        self._loops = np.zeros((0, 0), np.intp)
        self._reductions = np.zeros((0, 0), np.bool_)
        self._last_parallel = np.zeros(0, np.int64)

    def candidates(self, rows: Rows) -> Bits:
        """The candidates of each row of this sketch, shape (n,)."""
        place = self._place(rows)
        has_rule = np.array(self._has_rule, np.bool_)[place]
        found = np.empty(len(rows), np.int64)
        ruled, asked = np.flatnonzero(has_rule), np.flatnonzero(~has_rule)
        if len(ruled):
            found[ruled] = self._by_rule(rows[ruled], place[ruled])
        if len(asked):
            found[asked] = self._by_pattern(rows[asked], place[asked])
        return found

    def _place(self, rows: Rows) -> Bits:
        """Number of the place of the earlier blocks, numbered as they occur."""
        keys = np.zeros(len(rows), np.int64)
        for column in self._earlier:
            keys = (keys << 6) | (rows[:, column].astype(np.int64) - INLINE)
        place, known = self._places.find(keys)
        if not known.all():
            missing, first = np.unique(keys[~known], return_index=True)
            count = len(self._has_rule)
            for row in rows[~known][first]:
                self._learn_place(row)
            self._places.add(missing, np.arange(count, count + len(missing)))
            place, _ = self._places.find(keys)
        return place

    def _learn_place(self, row: Rows) -> None:
        consumer = self._space.location_consumer(self._point(row), self._knob)
        loops = consumer.loops or ()
        self._has_rule.append(consumer.loops is not None)
        self._fixed.append(_bits((INLINE, ROOT) if consumer.can_inline else (ROOT,)))
        width = max(self._loops.shape[1], len(loops))
        columns, reductions = np.zeros(width, np.intp), np.zeros(width, np.bool_)
        columns[: len(loops)] = [1 + slot for slot, _ in loops]
        reductions[: len(loops)] = [reduction for _, reduction in loops]
        last = max((i for i, (_, reduction) in enumerate(loops) if not reduction), default=-1)
        self._loops = np.vstack([_widened(self._loops, width), columns])
        self._reductions = np.vstack([_widened(self._reductions, width), reductions])
        self._last_parallel = np.append(self._last_parallel, last)

    def _by_rule(self, rows: Rows, place: Bits) -> Bits:
        """`schedenv.space.locations._reachable_loops` for many rows."""
        columns, reduction = self._loops[place], self._reductions[place]
        number = np.arange(columns.shape[1])
        there = (columns > 0) & (rows[np.arange(len(rows))[:, None], columns] != 1)
        trailing = there & reduction & (number > self._last_parallel[place][:, None])
        after_reduction = np.logical_or.accumulate(there & reduction, axis=1)
        ends = trailing | (there & ~reduction & after_reduction)
        reachable = there & ~np.logical_or.accumulate(ends, axis=1)
        bits: Bits = reachable @ (np.int64(1) << (number - INLINE).astype(np.int64))
        bits |= np.array(self._fixed, np.int64)[place]
        return bits

    def _by_pattern(self, rows: Rows, place: Bits) -> Bits:
        units = (rows[:, self._tile_columns] == 1) @ (
            np.int64(1) << np.arange(len(self._tile_columns), dtype=np.int64)
        )
        keys = place * (1 << MOST_LOOPS) + units
        found, known = self._patterns.find(keys)
        if not known.all():
            missing, first = np.unique(keys[~known], return_index=True)
            values = [
                _bits(self._space.location_candidates(self._point(row), self._knob))
                for row in rows[~known][first]
            ]
            self._patterns.add(missing, np.array(values, np.int64))
            found, _ = self._patterns.find(keys)
        return found

    def _point(self, row: Rows) -> Point:
        width = self._space.sketches[self._sketch].width
        return Point(self._sketch, tuple(row[1 : 1 + width].tolist()))


class BatchLocations:
    """Answers, for one space, which values compute locations may take at many points."""

    def __init__(self, space: Space) -> None:
        self._knobs = [
            [_KnobLocations(space, sketch.index, knob) for knob in sketch.locations()]
            for sketch in space.sketches
        ]

    def candidates(self, sketch: int, location: int, rows: Rows) -> Bits:
        """The candidates of a sketch's compute location, for rows of that sketch.

        Only the tiles and the earlier locations of a row matter.

        Returns:
            int64, shape (n,); bit v + 2 is set where the value v may be taken.
        """
        return self._knobs[sketch][location].candidates(rows)


def contains(candidates: Bits, values: Rows) -> Bools:
    """Whether each value is among the candidates of its row."""
    in_range = (values >= INLINE) & (values < 62 + INLINE)
    shift = np.where(in_range, values - INLINE, 0).astype(np.int64)
    found: Bools = in_range & (((candidates >> shift) & 1) == 1)
    return found


def next_value(candidates: Bits, values: Rows, *, up: bool) -> tuple[Rows, Bools]:
    """The next higher or lower candidate after each value, and whether there is one."""
    here = np.int64(1) << (values - INLINE).astype(np.int64)
    others = candidates & ~(2 * here - 1) if up else candidates & (here - 1)
    # Exact: there are fewer bits than a float64 has digits. frexp gives 0.5 <= m < 1.
    bit = np.frexp((others & -others if up else others).astype(np.float64))[1] - 1
    return (bit + INLINE).astype(np.int32), others != 0


def nth_value(candidates: Bits, share: npt.NDArray[np.float64]) -> Rows:
    """The candidate at a share (0 <= share < 1) of all of them, ascending."""
    is_set = (candidates[:, None] >> np.arange(62)) & 1
    count = is_set.cumsum(axis=1)
    wanted = (share * count[:, -1]).astype(np.int64) + 1
    values: Rows = ((count == wanted[:, None]).argmax(axis=1) + INLINE).astype(np.int32)
    return values


def _bits(values: tuple[int, ...]) -> int:
    return sum(1 << (value - INLINE) for value in values)


def _widened(table: npt.NDArray[np.generic], width: int) -> npt.NDArray[np.generic]:
    return np.pad(table, ((0, 0), (0, width - table.shape[1])))
