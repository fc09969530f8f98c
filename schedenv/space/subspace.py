"""A sub-space: finitely many points of a space, all of them known, with moves between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from schedenv.errors import InputError
from schedenv.space.knobs import ChoiceKnob, LocationKnob, TileKnob, divisors
from schedenv.space.moves import FactorMove, Move, SetMove, SketchMove
from schedenv.space.point import Point
from schedenv.space.restriction import MOST_POINTS, Restriction
from schedenv.space.search_space import SearchSpace
from schedenv.space.sketch import Sketch
from schedenv.space.space import Space

LOG_SCALE = 1 << 10
"""Of the coordinates: a factor of 2, or a step of an annotation or a location, is this much."""


class SubSpace(SearchSpace):
    """A part of a space, small enough to be listed.

    Everything follows from the list of points and the sketches' knobs, so a sub-space can be
    rebuilt from a recorded table without TVM.

    Args:
        sketches: All sketches of the whole space; instructions are not needed.
        points: The points that are kept, each once, in the order to keep.
        canonical: Gives a point's canonical form.

    Raises:
        InputError: There is no point, or one twice.
    """

    def __init__(
        self,
        sketches: Sequence[Sketch],
        points: Iterable[Point],
        canonical: Callable[[Point], str],
    ) -> None:
        self.sketches = tuple(sketches)
        self.width = max(sketch.width for sketch in self.sketches)
        self._points = tuple(points)
        self._position = {point: index for index, point in enumerate(self._points)}
        if not self._points or len(self._position) != len(self._points):
            raise InputError(
                "expected at least one point, each of them once; got "
                f"{len(self._points)} points, {len(self._position)} of them different"
            )
        self._canonical = canonical
        self._of_sketch = {
            sketch.index: [point for point in self._points if point.sketch == sketch.index]
            for sketch in self.sketches
        }
        self._coordinates = {
            index: np.array([coordinates(self.sketches[index], p.values) for p in points])
            for index, points in self._of_sketch.items()
        }
        self._moves = lru_cache(maxsize=None)(self._find_moves)

    @classmethod
    def of(cls, space: Space, restriction: Restriction, limit: int = MOST_POINTS) -> SubSpace:
        """The part of `space` that a restriction keeps.

        Raises:
            InputError: The restriction does not fit the space, or keeps more than `limit` points.
        """
        return cls(space.sketches, restriction.points(space, limit), space.canonical)

    # -- points ---------------------------------------------------------------------------------

    def points(self) -> tuple[Point, ...]:
        """All points, in a fixed order."""
        return self._points

    def default(self, sketch: int = 0) -> Point:
        """The point closest to the plainest one of a sketch; of another sketch if it has none."""
        if not self._of_sketch[sketch]:
            sketch = self._points[0].sketch
        return self._nearest(sketch, self.sketches[sketch].default_values())

    def sample(self, rng: np.random.Generator) -> Point:
        """Draw uniformly from the points."""
        return self._points[int(rng.integers(len(self._points)))]

    def size(self) -> float:
        """How many points there are."""
        return float(len(self._points))

    def explain_illegal(self, point: Point) -> str | None:
        """Why `point` is not one of the points; None if it is."""
        if point in self._position:
            return None
        return f"it is not one of the {len(self._points)} points of this sub-space"

    def location_candidates(self, point: Point, knob: LocationKnob) -> tuple[int, ...]:
        """Values of a compute location with which the point is still inside, ascending."""
        return tuple(
            sorted(
                other.values[knob.start]
                for other in self._of_sketch[point.sketch]
                if _equal_but_at(knob.start, point, other)
            )
        )

    def canonical(self, point: Point) -> str:
        """The canonical form, as the whole space has it."""
        return self._canonical(point)

    # -- moves ----------------------------------------------------------------------------------

    def legal_moves(self, point: Point) -> list[Move]:
        """Every single edit that leads to a point inside, in a fixed order.

        Where smaller steps lead outside, a factor may be a product of primes: between two slots,
        a factor moves if it leads inside and none of its divisors does.
        """
        return list(self._moves(point))

    def transfer(self, point: Point, sketch: int) -> Point:
        """The closest point of another sketch, comparing knobs of the same name.

        A knob that the old sketch does not have should be at its default. Where the sub-space has
        no point of the sketch, the answer is a point that is not inside.
        """
        source, destination = self.sketches[point.sketch], self.sketches[sketch]
        known = {(knob.kind, knob.name, knob.width): knob for knob in source.knobs}
        wanted = list(destination.default_values())
        for knob in destination.knobs:
            old = known.get((knob.kind, knob.name, knob.width))
            if old is not None:
                kept = point.values[old.start : old.start + old.width]
                wanted[knob.start : knob.start + knob.width] = kept
        if not self._of_sketch[sketch]:
            return Point(sketch, tuple(wanted))
        return self._nearest(sketch, wanted)

    def components(self) -> int:
        """How many parts there are that legal moves do not lead between in both directions."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        edges = [
            (index, self._position[neighbour])
            for index, point in enumerate(self._points)
            for neighbour in self.neighbours(point)
        ]
        shape = (len(self._points), len(self._points))
        rows, columns = zip(*edges, strict=True) if edges else ((), ())
        graph = csr_array((np.ones(len(edges)), (rows, columns)), shape=shape)
        return int(connected_components(graph, connection="strong")[0])

    def _nearest(self, sketch: int, values: Sequence[int]) -> Point:
        """The point of a sketch that is the fewest steps away; the first of several."""
        wanted = np.array(coordinates(self.sketches[sketch], values))
        distances = np.abs(self._coordinates[sketch] - wanted).sum(axis=1)
        return self._of_sketch[sketch][int(distances.argmin())]

    def _find_moves(self, point: Point) -> tuple[Move, ...]:
        sketch = self.sketches[point.sketch]
        moves: list[Move] = []
        for index, knob in enumerate(sketch.knobs):
            if isinstance(knob, TileKnob):
                moves += self._factor_moves(index, knob, point)
            else:
                moves += self._set_moves(index, knob, point)
        moves += (
            SketchMove(point, self.transfer(point, other.index))
            for other in self.sketches
            if other.index != point.sketch and self._of_sketch[other.index]
        )
        return tuple(moves)

    def _factor_moves(self, index: int, knob: TileKnob, point: Point) -> Iterator[FactorMove]:
        slots = range(knob.start, knob.start + knob.width)
        for source in slots:
            for destination in slots:
                found: list[int] = []
                for factor in divisors(point.values[source])[1:]:
                    move = FactorMove(index, source, destination, factor)
                    # Only the smallest steps, so that the way back is one of the smallest too.
                    if (
                        source != destination
                        and not any(factor % smaller == 0 for smaller in found)
                        and move.apply(point) in self._position
                    ):
                        found.append(factor)
                        yield move

    def _set_moves(
        self, index: int, knob: ChoiceKnob | LocationKnob, point: Point
    ) -> Iterator[SetMove]:
        old = point.values[knob.start]
        options = (
            self.location_candidates(point, knob)
            if isinstance(knob, LocationKnob)
            else range(len(knob.choices))
        )
        for new in options:
            move = SetMove(index, knob.start, old, new)
            if new != old and move.apply(point) in self._position:
                yield move


def coordinates(sketch: Sketch, values: Sequence[int]) -> list[int]:
    """A point's values on scales on which a step is about as large everywhere.

    They are integers, so that no rounding decides which of two points is closer.
    """
    scaled = [value * LOG_SCALE for value in values]
    for tile in sketch.tiles():
        for slot in range(tile.start, tile.start + tile.width):
            scaled[slot] = log_coordinate(values[slot])
    return scaled


def log_coordinate(factor: int) -> int:
    """A factor on the scale of its logarithm."""
    return round(float(np.log2(factor)) * LOG_SCALE)


def _equal_but_at(slot: int, one: Point, other: Point) -> bool:
    """Whether two points of a sketch differ in one slot at most."""
    before, after = slice(slot), slice(slot + 1, None)
    return one.values[before] == other.values[before] and one.values[after] == other.values[after]
