"""All points of a task, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from schedenv.space.batch import (
    ABSENT,
    BatchSpace,
    Bools,
    Rows,
    copied_slots,
    keeps_knobs,
    keeps_values,
    unchecked_transfer,
)
from schedenv.space.batch_locations import BatchLocations, contains, next_value, nth_value
from schedenv.space.knobs import ROOT, LocationKnob, TileKnob, divisors
from schedenv.space.space import Space


class BatchWhole(BatchSpace):
    """A whole `Space`, many points at once.

    TVM is asked about compute locations the first time that a pattern of unit loops, or a place
    of earlier blocks, occurs; see `schedenv.space.batch_locations`.

    Attributes:
        draws: Random numbers that drawing a point takes.
    """

    space: Space

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self._locations = BatchLocations(space)
        self.draws = 1 + max(len(sketch.knobs) for sketch in space.sketches)

    def is_legal(self, rows: Rows) -> Bools:
        """Whether each row is a point of the space."""
        legal = keeps_knobs(self.tables, rows)
        legal[legal] = self.admits(rows[legal])
        return legal

    def admits(self, rows: Rows) -> Bools:
        """Whether the compute locations of each row are among their candidates."""
        legal = np.ones(len(rows), np.bool_)
        for sketch, at in self.by_sketch(rows):
            for location, column in enumerate(self.tables.location_start[sketch]):
                if column == ABSENT:
                    break
                found = self._locations.candidates(sketch, location, rows[at])
                kept = contains(found, rows[at, column])
                legal[at[~kept]] = False
                at = at[kept]  # noqa: PLW2901 - the others are decided
        return legal

    def transfer(self, rows: Rows, sketch: int) -> Rows:
        """The points in another sketch: knobs of one name keep their values where they may."""
        moved = np.empty_like(rows)
        new = self.space.sketches[sketch]
        for source, at in self.by_sketch(rows):
            old_rows = rows[at]
            pairs = [
                (knob, old)
                for knob, old in self.transfer_tables(source, sketch)
                if old is not None and not isinstance(knob, LocationKnob)
            ]
            there = unchecked_transfer(old_rows, sketch, new, copied_slots(pairs))
            for knob, old in pairs:
                lost = ~keeps_values(knob, old, old_rows)
                there[lost, 1 + knob.start : 1 + knob.start + knob.width] = knob.default()
            known = dict(self.transfer_tables(source, sketch))
            for number, location in enumerate(new.locations()):
                old_location = known[location]
                if old_location is not None:
                    wanted = old_rows[:, 1 + old_location.start]
                    found = self._locations.candidates(sketch, number, there)
                    there[:, 1 + location.start] = np.where(contains(found, wanted), wanted, ROOT)
            moved[at] = there
        return moved

    def candidates(self, sketch: int, location: int, rows: Rows) -> npt.NDArray[np.int64]:
        """Values that a compute location may take, for rows of one sketch.

        Returns:
            As bits, see `schedenv.space.batch_locations.BatchLocations.candidates`, shape (n,).
        """
        return self._locations.candidates(sketch, location, rows)

    def next_location(self, rows: Rows, location: int, *, up: bool) -> tuple[Rows, Bools]:
        """The next candidate; see `BatchSpace`."""
        values, exists = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.bool_)
        for sketch, at in self.by_sketch(rows):
            column = self.tables.location_start[sketch, location]
            if column != ABSENT:
                found = self._locations.candidates(sketch, location, rows[at])
                values[at], exists[at] = next_value(found, rows[at, column], up=up)
        return values, exists

    def sample(self, rngs: Sequence[np.random.Generator]) -> Rows:
        """Draw one point from each generator, distributed as `Space.sample` draws them.

        Every generator gives the same number of random numbers at each call; they choose from
        tables, so a seed gives another point than it gives to `Space.sample`.
        """
        shares = np.array([rng.random(self.draws) for rng in rngs]).reshape(-1, self.draws)
        rows = np.zeros((len(rngs), 1 + self.space.width), np.int32)
        rows[:, 0] = (shares[:, 0] * len(self.space.sketches)).astype(np.int32)
        for number, at in self.by_sketch(rows):
            sketch, drawn = (
                self.space.sketches[number],
                np.zeros((len(at), rows.shape[1]), np.int32),
            )
            drawn[:, 0] = number
            for knob, share in zip(sketch.knobs, shares[at, 1:].T, strict=False):
                column = 1 + knob.start
                if isinstance(knob, TileKnob):
                    values = tilings(knob.extent, knob.width, knob.innermost_limit)
                    chosen = values[(share * len(values)).astype(np.intp)]
                    drawn[:, column : column + knob.width] = chosen
                elif not isinstance(knob, LocationKnob):
                    drawn[:, column] = share * len(knob.choices)
            # Locations depend on all tiles, so they come last.
            at_location = [n for n, k in enumerate(sketch.knobs) if isinstance(k, LocationKnob)]
            for location, knob_number in enumerate(at_location):
                found = self._locations.candidates(number, location, drawn)
                column = 1 + sketch.knobs[knob_number].start
                drawn[:, column] = nth_value(found, shares[at, 1 + knob_number])
            rows[at] = drawn
        return rows


@cache
def tilings(extent: int, width: int, innermost_limit: int) -> npt.NDArray[np.int32]:
    """All legal factorisations of a tile, one a row, ascending."""

    def place(left: int, levels: int) -> list[tuple[int, ...]]:
        if levels == 1:
            return [(left,)]
        return [(d, *rest) for d in divisors(left) for rest in place(left // d, levels - 1)]

    listed = np.array(place(extent, width), np.int32).reshape(-1, width)
    return listed[listed[:, -1] <= innermost_limit]
