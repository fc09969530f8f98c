"""Many points of several spaces as numbers of knob values: what depends on a knob is a look-up.

A point here is a line of integers: the number of its sketch, counted through all spaces, and one
*state* for every knob, the number of the value that the knob holds, counted through all knobs of
all sketches. Whatever depends on one knob alone (what it looks like, where an action leads it, what
it adds to a score) is then a table with one entry a state, and a step of hundreds of points is a
few gathers, whichever spaces they are of. Only compute locations depend on other knobs; see
`schedenv.space.state_locations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt

from schedenv.space.batch import Indices, Rows
from schedenv.space.batch_locations import contains, nth_value
from schedenv.space.batch_whole import BatchWhole, tilings
from schedenv.space.knobs import INLINE, ROOT, ChoiceKnob, Knob, LocationKnob, Role, TileKnob
from schedenv.space.sketch import Sketch
from schedenv.space.space import Space
from schedenv.space.state_locations import StateLocations

States = npt.NDArray[np.int32]
"""Points, shape (n, `KnobStates.columns`): the sketch, its tiles, annotations by role, locations;
0 for a knob that the sketch does not have."""

LOCATION_VALUES = np.arange(INLINE, 60, dtype=np.int32)
"""Every value that a compute location may have; as many as `batch_locations` has bits for."""


class KnobStates:
    """Numbers the sketches and knob values of several spaces, and goes from rows to states.

    Args:
        spaces: The spaces.

    Attributes:
        batches: Each space for many rows at once.
        columns: Integers of a point.
        tiles: Columns of tiles, a slice.
        choices: Columns of annotations, a slice, in the order of `Role`.
        locations: Columns of compute locations, a slice.
        sketches: The sketches of all spaces, one after the other.
        space_of: Of each sketch, the position of its space, shape (sketches,).
        first_sketch: Of each space, the number of its first sketch, and their count at the end.
        first: State of the first value of each knob, int32, shape (sketches, columns); 0 where
            there is no knob.
        count: How many values it has.
        values: What each state stands for: factors of a tile, padded with 1; the index of a
            choice; a location; int32, shape (states, levels). State 0 stands for nothing.
        placing: Which compute locations are legal.
        has_locations: Of each sketch, whether it has any.
    """

    def __init__(self, spaces: Sequence[Space]) -> None:
        self.batches = [BatchWhole(space) for space in spaces]
        self.sketches = [sketch for space in spaces for sketch in space.sketches]
        counts = [len(space.sketches) for space in spaces]
        self.space_of = np.repeat(np.arange(len(spaces)), counts)
        self.first_sketch = np.cumsum([0, *counts])
        first_choice = 1 + max(len(list(sketch.tiles())) for sketch in self.sketches)
        first_location = first_choice + len(get_args(Role))
        self.columns = first_location + max(len(list(s.locations())) for s in self.sketches)
        self.tiles = slice(1, first_choice)
        self.choices = slice(first_choice, first_location)
        self.locations = slice(first_location, self.columns)
        shape = len(self.sketches), self.columns
        self.first, self.count = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        # Of each knob, its number among those of the sketch: that of its random number, less one.
        self._number = np.zeros(shape, np.intp)
        levels = max((t.width for sketch in self.sketches for t in sketch.tiles()), default=1)
        listed = [np.ones((1, levels), np.int32)]
        states = 1
        for sketch, column, number, knob in self._knobs():
            found = knob_values(knob)
            padded = np.ones((len(found), levels), np.int32)
            padded[:, : found.shape[1]] = found
            listed.append(padded)
            at = sketch, column
            self.first[at], self.count[at], self._number[at] = states, len(found), number
            states += len(found)
        self.values = np.concatenate(listed)
        self.has_locations = np.asarray(self.first[:, self.locations].any(axis=1))
        self._map_slots()
        self._map_sketches()
        self.placing = StateLocations(self)

    def knob_columns(self, sketch: Sketch) -> list[int]:
        """The column of each knob of a sketch, in the order of its slots."""
        tile, location = self.tiles.start, self.locations.start
        columns = []
        for knob in sketch.knobs:
            if isinstance(knob, TileKnob):
                columns.append(tile)
                tile += 1
            elif isinstance(knob, LocationKnob):
                columns.append(location)
                location += 1
            else:
                columns.append(self.choices.start + get_args(Role).index(knob.role))
        return columns

    def rows(self, space: int, points: States) -> Rows:
        """The rows of points of one space, as `SearchSpace.encode` gives them."""
        sketches = points[:, 0]
        lines = np.arange(len(points))[:, None]
        width = self.batches[space].space.width
        rows = np.zeros((len(points), 1 + width), np.int32)
        rows[:, 0] = sketches - self.first_sketch[space]
        at = points[lines, self._slot_column[sketches, :width]]
        rows[:, 1:] = self.values[at, self._slot_level[sketches, :width]]
        rows[:, 1:] *= self._slot_exists[sketches, :width]
        return rows

    def points(self, space: int, rows: Rows) -> States:
        """The points of legal rows of one space; a loop over knobs and their values."""
        points = np.zeros((len(rows), self.columns), np.int32)
        points[:, 0] = rows[:, 0] + self.first_sketch[space]
        for point, row in zip(points, rows, strict=True):
            sketch = self.sketches[point[0]]
            for knob, column in zip(sketch.knobs, self.knob_columns(sketch), strict=True):
                held = row[1 + knob.start : 1 + knob.start + knob.width]
                local = (knob_values(knob) == held).all(axis=1).argmax()
                point[column] = self.first[point[0], column] + local
        return points

    def sample(self, spaces: Indices, rngs: Sequence[np.random.Generator]) -> States:
        """Draw a point of each space from its own generator, as `BatchWhole.sample` draws it."""
        draws = [batch.draws for batch in self.batches]
        shares = np.zeros((len(rngs), max(draws)))
        for share, space, rng in zip(shares, spaces.tolist(), rngs, strict=True):
            share[: draws[space]] = rng.random(draws[space])
        counts = np.diff(self.first_sketch)[spaces]
        sketches = self.first_sketch[spaces] + (shares[:, 0] * counts).astype(np.intp)
        lines = np.arange(len(rngs))[:, None]
        knob_shares = shares[lines, 1 + self._number[sketches]]
        points: States = (knob_shares * self.count[sketches]).astype(np.int32)
        points += self.first[sketches]
        points[:, 0] = sketches
        for number, column in self._location_columns():
            at = np.flatnonzero(points[:, column])
            if len(at):
                found = self.placing.candidates(points[at], number)
                value = nth_value(found, knob_shares[at, column])
                points[at, column] = self.first[points[at, 0], column] + value - INLINE
        return points

    def transfer(self, points: States, sketches: Indices) -> States:
        """Points in other sketches of their spaces, as `SearchSpace.transfer` does it.

        Args:
            points: The points.
            sketches: Numbers of the sketches, shape (n,).
        """
        old = points[:, 0]
        pair = self._pair[old, sketches - self.first_sketch[self.space_of[sketches]]]
        source = self._source[pair]
        lines = np.arange(len(points))[:, None]
        local = (points[lines, source] - self.first[old[:, None], source]) * (source > 0)
        moved: States = self._translated[self._base[pair] + local]
        moved[:, 0] = sketches
        for number, column in self._location_columns():
            at = np.flatnonzero(moved[:, column])
            if len(at):
                # One that would be illegal in its new sketch goes to the root.
                value = self.values[moved[at, column], 0]
                at = at[~contains(self.placing.candidates(moved[at], number), value)]
                moved[at, column] = self.first[moved[at, 0], column] + ROOT - INLINE
        return moved

    def _location_columns(self) -> Iterator[tuple[int, int]]:
        """The numbers and columns of compute locations."""
        return enumerate(range(self.locations.start, self.columns))

    def _knobs(self) -> Iterator[tuple[int, int, int, Knob]]:
        """All knobs: number of the sketch, column, number in the sketch, knob."""
        for number, sketch in enumerate(self.sketches):
            for position, column in enumerate(self.knob_columns(sketch)):
                yield number, column, position, sketch.knobs[position]

    def _map_slots(self) -> None:
        """From slots of rows to columns and levels."""
        shape = len(self.sketches), max(sketch.width for sketch in self.sketches)
        self._slot_column, self._slot_level = np.zeros(shape, np.intp), np.zeros(shape, np.intp)
        self._slot_exists = np.zeros(shape, np.int32)
        for number, column, _, knob in self._knobs():
            slots = slice(knob.start, knob.start + knob.width)
            self._slot_column[number, slots] = column
            self._slot_level[number, slots] = np.arange(knob.width)
            self._slot_exists[number, slots] = 1

    def _map_sketches(self) -> None:
        """For each two sketches of a space, from the states of one to those of the other."""
        most = int(np.diff(self.first_sketch).max())
        self._pair = np.zeros((len(self.sketches), most), np.intp)
        sources: list[Indices] = []
        bases: list[Indices] = []
        translated = [np.zeros(1, np.int32)]
        end = 1
        for old in range(len(self.sketches)):
            space = self.space_of[old]
            for new in range(self.first_sketch[space], self.first_sketch[space + 1]):
                self._pair[old, new - self.first_sketch[space]] = len(sources)
                source, base = np.zeros((2, self.columns), np.intp)
                for column, from_column, states in self._translations(int(space), old, new):
                    source[column], base[column] = from_column, end
                    translated.append(states)
                    end += len(states)
                sources.append(source)
                bases.append(base)
        self._source, self._base = np.stack(sources), np.stack(bases)
        self._translated = np.concatenate(translated)

    def _translations(self, space: int, old: int, new: int) -> Iterator[tuple[int, int, States]]:
        """For each knob of `new`: its column, that of its source (0 for none), and its states."""
        columns = dict(
            zip(self.sketches[old].knobs, self.knob_columns(self.sketches[old]), strict=True)
        )
        pairs = self.batches[space].transfer_tables(
            self.sketches[old].index, self.sketches[new].index
        )
        targets = self.knob_columns(self.sketches[new])
        for column, (knob, source) in zip(targets, pairs, strict=True):
            first, values = self.first[new, column], knob_values(knob)
            default = first + (values == knob.default()).all(axis=1).argmax()
            if source is None:
                yield column, 0, np.array([default], np.int32)
                continue
            known = {tuple(value): first + n for n, value in enumerate(values.tolist())}
            states = [known.get(tuple(v), default) for v in knob_values(source).tolist()]
            yield column, columns[source], np.array(states, np.int32)


def knob_values(knob: Knob) -> Rows:
    """Every value of a knob that its type allows, ascending, int32, shape (values, width)."""
    if isinstance(knob, TileKnob):
        return tilings(knob.extent, knob.width, knob.innermost_limit)
    if isinstance(knob, ChoiceKnob):
        return np.arange(len(knob.choices), dtype=np.int32)[:, None]
    return LOCATION_VALUES[:, None]
