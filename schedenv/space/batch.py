"""Many points at once: a space compiled into numpy tables, with points as rows of integers.

A row is what `SearchSpace.encode` gives: the sketch, the values, a padding of zeros; int32, shape
(n, 1 + width). Everything here follows the rules of `SearchSpace` row by row, without a Python
loop over rows and, once the patterns that occur are known, without TVM (see
`schedenv.space.batch_locations`).
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from schedenv.space.knobs import ChoiceKnob, Knob, Role, TileKnob, divisors, factorise
from schedenv.space.search_space import SearchSpace
from schedenv.space.sketch import Sketch

Rows = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

_DENSE_LIMIT = 1 << 20
"""Up to this extent, factors are found in an array over all numbers instead of by searching."""

ABSENT = -1
"""Start of a knob that a sketch does not have."""


class SketchTables:
    """Where each knob of each sketch stands and what it may hold, as padded arrays.

    The first axis is the sketch, the second one the number of the knob among those of its kind.
    Starts are columns of a row (slot + 1), `ABSENT` where there is no such knob.

    Attributes:
        tile_start: int32, shape (sketches, most tiles).
        tile_width: Levels, 0 where there is no such tile.
        tile_extent: Product of the factors.
        tile_limit: Largest innermost factor.
        choice_start: int32, shape (sketches, 3), by role in the order of `Role`.
        choice_count: How many choices there are, 0 where there is no such knob.
        location_start: int32, shape (sketches, most locations), in the order of the trace.
        widths: Slots of each sketch, shape (sketches,).
    """

    def __init__(self, sketches: Sequence[Sketch]) -> None:
        tiles = [list(sketch.tiles()) for sketch in sketches]
        locations = [list(sketch.locations()) for sketch in sketches]
        self.tile_start = _padded(((t.start + 1 for t in ts) for ts in tiles), ABSENT)
        self.tile_width = _padded(((t.width for t in ts) for ts in tiles), 0)
        self.tile_extent = _padded(((t.extent for t in ts) for ts in tiles), 0)
        self.tile_limit = _padded(((t.innermost_limit for t in ts) for ts in tiles), 0)
        self.location_start = _padded(((k.start + 1 for k in ks) for ks in locations), ABSENT)
        choices = [[_choice(sketch, role) for role in get_args(Role)] for sketch in sketches]
        self.choice_start = _padded(
            ((ABSENT if k is None else k.start + 1 for k in ks) for ks in choices), ABSENT
        )
        self.choice_count = _padded(
            ((0 if k is None else len(k.choices) for k in ks) for ks in choices), 0
        )
        self.widths = np.array([sketch.width for sketch in sketches], np.int32)


class FactorTable:
    """Every factor that a tile can hold, with its primes.

    Args:
        extents: The tiles' extents.

    Attributes:
        known: The factors, ascending, int32.
        smallest: The smallest prime of each, 1 of 1.
        largest: The largest prime of each, 1 of 1.
    """

    def __init__(self, extents: Iterable[int]) -> None:
        known = sorted({d for extent in set(extents) for d in divisors(extent)} | {1})
        primes = [[prime for prime, _ in factorise(number)] or [1] for number in known]
        self.known = np.array(known, np.int32)
        self.smallest = np.array([ps[0] for ps in primes], np.int32)
        self.largest = np.array([ps[-1] for ps in primes], np.int32)
        self._dense: npt.NDArray[np.int32] | None = None
        if known[-1] <= _DENSE_LIMIT:
            self._dense = np.zeros(known[-1] + 1, np.int32)
            self._dense[self.known] = np.arange(len(known))

    def find(self, factors: Rows) -> npt.NDArray[np.integer[Any]]:
        """The position of each factor, of the shape of `factors`.

        A number that no tile can hold, such as the padding of a row, gives any position.
        """
        if self._dense is not None:
            # Clipping also spares numpy a check of the bounds.
            return self._dense.take(factors, mode="clip")
        return np.minimum(np.searchsorted(self.known, factors), len(self.known) - 1)


class BatchSpace(abc.ABC):
    """A search space for many points at once; `batch_space` makes the one that fits.

    Attributes:
        space: The space that it agrees with.
        tables: Its sketches.
        factors: What its tiles can hold.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.tables = SketchTables(space.sketches)
        self.factors = FactorTable(t.extent for sketch in space.sketches for t in sketch.tiles())

    @abc.abstractmethod
    def is_legal(self, rows: Rows) -> Bools:
        """Whether each row is a point of the space, shape (n,)."""

    @abc.abstractmethod
    def admits(self, rows: Rows) -> Bools:
        """The same, for rows whose tiles and annotations are legal by construction."""

    @abc.abstractmethod
    def transfer(self, rows: Rows, sketch: int) -> Rows:
        """The points expressed in another sketch, as `SearchSpace.transfer` does it."""

    @abc.abstractmethod
    def next_location(self, rows: Rows, location: int, *, up: bool) -> tuple[Rows, Bools]:
        """The next higher or lower candidate of each row's compute location.

        Args:
            rows: Legal points, shape (n, 1 + width).
            location: Number of the location knob among those of a row's sketch.
            up: The next higher one.

        Returns:
            The candidates, int32, shape (n,), and whether there is one.
        """

    @abc.abstractmethod
    def sample(self, rngs: Sequence[np.random.Generator]) -> Rows:
        """Draw one point from each generator, distributed as `SearchSpace.sample` draws them.

        A generator's point does not depend on what else is drawn in the batch.
        """

    def transfer_tables(self, source: int, sketch: int) -> list[tuple[Knob, Knob | None]]:
        """For each knob of `sketch`, the one of `source` that it takes its values from."""
        old, new = self.space.sketches[source], self.space.sketches[sketch]
        known = {(knob.kind, knob.name, knob.width): knob for knob in old.knobs}
        return [(knob, known.get((knob.kind, knob.name, knob.width))) for knob in new.knobs]

    def by_sketch(self, rows: Rows) -> Iterable[tuple[int, Indices]]:
        """The sketches that occur, each with the positions of its rows."""
        for sketch in np.unique(rows[:, 0]):
            yield int(sketch), np.flatnonzero(rows[:, 0] == sketch)


def keeps_knobs(tables: SketchTables, rows: Rows) -> Bools:
    """Whether sketch, tiles, annotations and padding of each row are legal; locations aside."""
    sketches = rows[:, 0]
    legal = (sketches >= 0) & (sketches < len(tables.widths))
    at = np.where(legal, sketches, 0)
    columns = np.arange(1, rows.shape[1])
    legal &= ((columns <= tables.widths[at][:, None]) | (rows[:, 1:] == 0)).all(axis=1)
    lines = np.arange(len(rows))
    for tile in range(tables.tile_start.shape[1]):
        width = tables.tile_width[at, tile]
        product = np.ones(len(rows), np.int64)
        positive = np.ones(len(rows), np.bool_)
        innermost = np.ones(len(rows), np.int32)
        for level in range(int(tables.tile_width.max(initial=0))):
            held = level < width
            factor = rows[lines, np.where(held, tables.tile_start[at, tile] + level, 0)]
            product *= np.where(held, factor, 1)
            positive &= ~held | (factor >= 1)
            innermost = np.where(level == width - 1, factor, innermost)
        exact = positive & (product == tables.tile_extent[at, tile])
        legal &= (width == 0) | (exact & (innermost <= tables.tile_limit[at, tile]))
    for role in range(tables.choice_start.shape[1]):
        start = tables.choice_start[at, role]
        value = rows[lines, np.maximum(start, 0)]
        in_range = (value >= 0) & (value < tables.choice_count[at, role])
        legal &= (start == ABSENT) | in_range
    return legal


def unchecked_transfer(rows: Rows, sketch: int, new: Sketch, old: dict[int, int]) -> Rows:
    """Rows of another sketch: its defaults, with the slots of `old` (new slot: old slot) kept."""
    moved = np.zeros_like(rows)
    moved[:, 0] = sketch
    moved[:, 1 : 1 + new.width] = new.default_values()
    if old:
        moved[:, 1 + np.array(list(old))] = rows[:, 1 + np.array(list(old.values()))]
    return moved


def copied_slots(pairs: Iterable[tuple[Knob, Knob | None]]) -> dict[int, int]:
    """The slots of pairs of knobs, new slot to old slot."""
    return {
        new.start + level: old.start + level
        for new, old in pairs
        if old is not None
        for level in range(new.width)
    }


def keeps_values(new: Knob, old: Knob, rows: Rows) -> Bools:
    """Whether `new` may hold what `old` holds in each row; neither is a location."""
    if isinstance(new, TileKnob):
        values = rows[:, 1 + old.start : 1 + old.start + old.width]
        product = values.astype(np.int64).prod(axis=1)
        return (product == new.extent) & (values[:, -1] <= new.innermost_limit)  # type: ignore[no-any-return]
    assert isinstance(new, ChoiceKnob)
    return rows[:, 1 + old.start] < len(new.choices)


def _choice(sketch: Sketch, role: Role) -> ChoiceKnob | None:
    return next((knob for knob in sketch.choices() if knob.role == role), None)


def _padded(lines: Iterable[Iterable[int]], padding: int) -> Rows:
    """Ragged lines as one array."""
    listed = [list(line) for line in lines]
    # At least one column, so that there is something to gather from.
    table = np.full((len(listed), max(1, *map(len, listed))), padding, np.int32)
    for line, numbers in zip(table, listed, strict=True):
        line[: len(numbers)] = numbers
    return table
