"""Compute locations of points as knob states: which are legal, and which tiles they hang on.

The rule is that of `schedenv.space.locations`, written on bits: one bit for each tiled loop of a
sketch, set where the loop runs more than once. Which loops a place of the earlier blocks leaves
for a location, and in what order, is asked of the space the first time that the place occurs;
from then on a value's legality is a few operations on whole arrays. Where there is no rule, TVM's
answer is kept for each pattern of unit loops, as in `schedenv.space.batch_locations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from schedenv.errors import InputError
from schedenv.space.batch import Bools, Indices
from schedenv.space.batch_locations import MOST_LOOPS, Bits, Memo, contains
from schedenv.space.knobs import INLINE, ROOT, LocationKnob, TileKnob
from schedenv.space.point import Point

if TYPE_CHECKING:
    from schedenv.space.knob_states import KnobStates, States

_ALWAYS = np.int64(1) << 62
"""A bit that is set at every point."""

_ANY = np.int64(-1)
_VALUES = 62
_MOST_LOCATIONS = 8


class StateLocations:
    """Answers for all points of `KnobStates` at once, whichever spaces they are of.

    Args:
        states: The spaces.

    Raises:
        InputError: A sketch has more loops or locations than there are bits.
    """

    def __init__(self, states: KnobStates) -> None:
        self._states = states
        self._first_column = states.locations.start
        self._last_loop = 1
        # Bits of the levels that run more than once, of the sketch that a state belongs to.
        self._loops = np.zeros(len(states.values), np.int64)
        for number, sketch in enumerate(states.sketches):
            loops = sum(tile.width for tile in sketch.tiles())
            count = len(list(sketch.locations()))
            if loops > MOST_LOOPS or count > _MOST_LOCATIONS:
                raise InputError(
                    f"expected a sketch of at most {MOST_LOOPS} tiled loops and {_MOST_LOCATIONS} "
                    f"compute locations, got {loops} and {count}; step this task in single "
                    "environments: gymnasium.make"
                )
            bit_of = self._bit_of(number)
            for knob, column in zip(sketch.knobs, states.knob_columns(sketch), strict=True):
                if isinstance(knob, TileKnob):
                    first = states.first[number, column]
                    own = slice(first, first + states.count[number, column])
                    bits = [np.int64(1) << bit_of[knob.start + n] for n in range(knob.width)]
                    self._loops[own] = (states.values[own, : knob.width] > 1) @ np.array(bits)
        self._places = Memo()
        self._patterns = Memo()
        self._owner: list[tuple[int, LocationKnob]] = []
        self._has_rule = np.zeros(0, np.bool_)
        # Of each place and value: a loop that must run more than once, and pairs of sets of loops
        # of which only one may have loops that do.
        self._needed = np.zeros((0, _VALUES), np.int64)
        self._before = np.zeros((0, _VALUES, 1), np.int64)
        self._after = np.zeros((0, _VALUES, 1), np.int64)

    def loops(self, points: States) -> Bits:
        """The loops of each point that run more than once, shape (n,)."""
        found: Bits = self._loops.take(points[:, self._states.tiles]).sum(axis=1)
        return found | _ALWAYS

    def admits(self, points: States) -> Bools:
        """Whether all locations of each point are legal, shape (n,)."""
        legal = np.ones(len(points), np.bool_)
        loops = self.loops(points)
        for location in range(self._states.columns - self._first_column):
            at, value = self._held(points, location)
            bound = value != ROOT - INLINE
            at, value = at[bound], value[bound]
            if len(at):
                place = self._place(points[at], location)
                legal[at] &= self._is_legal(points[at], place, value, loops[at])
        return legal

    def candidates(self, points: States, location: int) -> Bits:
        """Values that a location may take at points that have it; bit v - INLINE for v, (n,)."""
        place, loops = self._place(points, location), self.loops(points)
        found = np.empty(len(points), np.int64)
        ruled = self._has_rule[place]
        if ruled.any():
            # Values beyond the last loop of any place are never legal.
            values = np.arange(self._last_loop + 1 - INLINE)
            legal = self._rule(place[ruled][:, None], values, loops[ruled][:, None])
            found[ruled] = legal @ (np.int64(1) << values)
        if not ruled.all():
            found[~ruled] = self._asked(points[~ruled], place[~ruled], loops[~ruled])
        return found

    def hazards(self, points: States) -> tuple[Bits, Bits]:
        """Which loops matter to the locations of each point.

        Returns:
            The loops that a location may not survive becoming unit loops, and those that it may
            not survive running more than once, shape (n,) each. Other changes of loops keep all
            locations legal.
        """
        ending, starting = np.zeros((2, len(points)), np.int64)
        loops = self.loops(points)
        for location in range(self._states.columns - self._first_column):
            at, value = self._held(points, location)
            bound = value != ROOT - INLINE
            at, value = at[bound], value[bound]
            if not len(at):
                continue
            place = self._place(points[at], location)
            before, after = self._before[place, value], self._after[place, value]
            there = loops[at][:, None]
            risk = np.where(there & before, after, 0) | np.where(there & after, before, 0)
            asked = ~self._has_rule[place]
            ending[at] |= np.where(asked, _ANY, self._needed[place, value])
            starting[at] |= np.where(asked, _ANY, np.bitwise_or.reduce(risk, axis=1))
        return ending, starting

    def loop_changes(self, successors: States) -> tuple[Bits, Bits]:
        """For a table of successors: the loops that each makes unit, and that each ends being so.

        Args:
            successors: States, shape (states, actions); any other number where there is none.
        """
        before, after = self._loops[:, None], self._loops[successors]
        return before & ~after, after & ~before

    def _held(self, points: States, location: int) -> tuple[Indices, npt.NDArray[np.int32]]:
        """The points that have a location, and its value, counted from `INLINE`."""
        state = points[:, self._first_column + location]
        at = np.flatnonzero(state)
        first = self._states.first[points[at, 0], self._first_column + location]
        return at, state[at] - first

    def _is_legal(
        self, points: States, place: Bits, value: npt.NDArray[np.int32], loops: Bits
    ) -> Bools:
        legal = self._rule(place, value, loops)
        asked = np.flatnonzero(~self._has_rule[place])
        if len(asked):
            found = self._asked(points[asked], place[asked], loops[asked])
            legal[asked] = contains(found, value[asked] + np.int32(INLINE))
        return legal

    def _rule(self, place: Bits, value: npt.NDArray[np.integer], loops: Bits) -> Bools:
        legal: Bools = (loops & self._needed[place, value]) != 0
        for pair in range(self._before.shape[2]):
            before = loops & self._before[place, value, pair]
            legal &= (before == 0) | ((loops & self._after[place, value, pair]) == 0)
        return legal

    def _asked(self, points: States, place: Bits, loops: Bits) -> Bits:
        """The candidates where there is no rule."""
        keys = (place << MOST_LOOPS) | (loops & ~_ALWAYS)
        found, known = self._patterns.find(keys)
        if not known.all():
            missing, first = np.unique(keys[~known], return_index=True)
            values = []
            for point, number in zip(points[~known][first], place[~known][first], strict=True):
                space, knob = self._owner[number]
                listed = self._states.batches[space].space.location_candidates(
                    self._point(space, point), knob
                )
                values.append(sum(1 << (value - INLINE) for value in listed))
            self._patterns.add(missing, np.array(values, np.int64))
            found, _ = self._patterns.find(keys)
        return found

    def _place(self, points: States, location: int) -> Bits:
        """Number of a location, its sketch, and the place of the earlier blocks."""
        sketches = points[:, 0]
        keys = sketches.astype(np.int64) * _MOST_LOCATIONS + location
        for earlier in range(self._first_column, self._first_column + location):
            keys = (keys << 6) | (points[:, earlier] - self._states.first[sketches, earlier])
        place, known = self._places.find(keys)
        if not known.all():
            missing, first = np.unique(keys[~known], return_index=True)
            count = len(self._owner)
            for point in points[~known][first]:
                self._learn(point, location)
            self._places.add(missing, np.arange(count, count + len(missing)))
            place, _ = self._places.find(keys)
        return place

    def _learn(self, point: States, location: int) -> None:
        """Ask the space about a place, and write its answer as bits."""
        space = int(self._states.space_of[point[0]])
        knob = list(self._states.sketches[point[0]].locations())[location]
        consumer = self._states.batches[space].space.location_consumer(
            self._point(space, point), knob
        )
        self._owner.append((space, knob))
        self._has_rule = np.append(self._has_rule, consumer.loops is not None)
        bit_of = self._bit_of(int(point[0]))
        loops = [
            (np.int64(1) << bit_of[slot], reduction) for slot, reduction in consumer.loops or ()
        ]
        self._last_loop = max(self._last_loop, len(loops))
        needed = np.zeros(_VALUES, np.int64)
        needed[0] = _ALWAYS if consumer.can_inline else 0
        needed[ROOT - INLINE] = _ALWAYS
        needed[-INLINE : len(loops) - INLINE] = [bit for bit, _ in loops]
        pairs = [exclusive_loops(loops, value) for value in range(len(loops))]
        width = max([self._before.shape[2], *(len(listed) for listed in pairs)])
        before, after = np.zeros((2, _VALUES, width), np.int64)
        for value, listed in enumerate(pairs):
            for number, (one, other) in enumerate(listed):
                before[value - INLINE, number], after[value - INLINE, number] = one, other
        self._needed = np.vstack([self._needed, needed[None]])
        self._before = np.concatenate([_widened(self._before, width), before[None]])
        self._after = np.concatenate([_widened(self._after, width), after[None]])

    def _point(self, space: int, point: States) -> Point:
        (row,) = self._states.rows(space, point[None])
        sketch = self._states.sketches[point[0]]
        return Point(sketch.index, tuple(row[1 : 1 + sketch.width].tolist()))

    def _bit_of(self, sketch: int) -> dict[int, int]:
        """The bit of each slot that holds a loop's extent."""
        tiles = self._states.sketches[sketch].tiles()
        slots = [slot for tile in tiles for slot in range(tile.start, tile.start + tile.width)]
        return {slot: bit for bit, slot in enumerate(slots)}


def exclusive_loops(loops: Sequence[tuple[np.int64, bool]], value: int) -> list[tuple[int, int]]:
    """What `schedenv.space.locations` forbids of the loops down to a location.

    Args:
        loops: The consumer's loops, outermost first: its bit, and whether it is a reduction.
        value: The loop under which the location is.

    Returns:
        Pairs of sets of loops; under this loop a block may be computed if of no pair both sets
        have a loop that runs more than once. They say: no data-parallel loop after a reduction,
        and no trailing reduction.
    """
    last_parallel = max((n for n, (_, reduction) in enumerate(loops) if not reduction), default=-1)
    pairs: dict[int, int] = {}
    for number, (bit, reduction) in enumerate(loops[: value + 1]):
        if not reduction:
            continue
        if number > last_parallel:
            later = int(_ALWAYS)
        else:
            later = sum(int(b) for b, red in loops[number + 1 : value + 1] if not red)
        pairs[later] = pairs.get(later, 0) | int(bit)
    return [(reductions, later) for later, reductions in pairs.items() if later]


def _widened(table: Bits, width: int) -> Bits:
    return np.pad(table, ((0, 0), (0, 0), (0, width - table.shape[2])))
