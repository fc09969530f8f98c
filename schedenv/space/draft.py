"""Points whose inner tile fits the vector registers, drawn as a person would choose them.

A uniform draw from a convolution's space is rarely within a factor of three of the best: its inner
loops are too short to fill a vector, or need more accumulators than there are registers. A draft
takes a whole number of vectors along the last axis, as many rows of them as registers hold, and the
rest at random (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008;
the idea of a draft before the search is Pruner's).
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from itertools import product

import numpy as np

from schedenv.hardware import vector_registers
from schedenv.space.knobs import ChoiceKnob, TileKnob, divisors
from schedenv.space.point import Point
from schedenv.space.search_space import SearchSpace
from schedenv.space.sketch import Sketch

_OPERANDS = 1 / 8
"""Share of the vector registers that is left for what is multiplied."""

_FEWEST = 6
"""Accumulators below which the latency of a multiply-add is not hidden."""

_TRIES = 50
"""Drafts looked at before a point is drawn uniformly."""


class Drafter:
    """Draws drafts where a space has tiled sketches, uniform points where it has none.

    Args:
        space: The points. A draft that is not one of them is never drawn, so that a recorded table
            can be drawn from as well; most tables hold none, and are then drawn from uniformly.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._tiled = [sketch for sketch in space.sketches if is_tiled(sketch)]

    def sample(self, rng: np.random.Generator, known: Container[Point] = ()) -> Point:
        """Draw a point that is not among the known ones; if none is found soon, any point."""
        legal = False
        for _ in range(_TRIES if self._tiled else 0):
            sketch = self._tiled[int(rng.integers(len(self._tiled)))]
            point = draft(self._space, sketch, rng)
            if self._space.is_legal(point):
                legal = True
                if point not in known:
                    return point
        if not legal:
            # A table without drafts: looking for them costs more than all the rest of a search.
            self._tiled = []
        return self._space.sample(rng)


def is_tiled(sketch: Sketch) -> bool:
    """Whether a sketch tiles a reduction in several levels: what register tiles are for."""
    tiles = list(sketch.tiles())
    return any(tile.is_reduction for tile in tiles) and any(tile.width == 4 for tile in tiles)


def draft(space: SearchSpace, sketch: Sketch, rng: np.random.Generator) -> Point:
    """Draw a point of a tiled sketch whose innermost tile fits the registers.

    It may be illegal; in a recorded table most of them are.
    """
    values = list(space.default(sketch.index).values)
    spatial = [tile for tile in sketch.tiles() if not tile.is_reduction]
    lanes = _lanes(sketch)
    inner = _register_tile([tile.extent for tile in spatial], lanes, accumulators(lanes), rng)
    for tile, factor in zip(spatial, inner, strict=True):
        values[tile.start : tile.start + tile.width] = _split(tile, factor, rng)
    for tile in sketch.tiles():
        if tile.is_reduction:
            values[tile.start : tile.start + tile.width] = tile.sample(rng)
    for choice in sketch.choices():
        values[choice.start] = _choose(choice, rng)
    point = Point(sketch.index, tuple(values))
    for location in sketch.locations():
        candidates = space.location_candidates(point, location)
        if not candidates:
            # A recorded table has none for tiles that it does not hold.
            break
        values[location.start] = candidates[int(rng.integers(len(candidates)))]
        point = Point(sketch.index, tuple(values))
    return point


def _lanes(sketch: Sketch) -> int:
    """Elements of a vector register: the shortest vector that the space offers."""
    for choice in sketch.choices():
        if choice.role == "vectorize":
            return next((length for length in choice.choices if length), 1)
    return 1


def accumulators(lanes: int) -> int:
    """The largest tile that stays in registers of so many float32 elements, in vectors."""
    return round(vector_registers(32 * lanes) * (1 - _OPERANDS))


def _register_tile(
    extents: Sequence[int], lanes: int, most: int, rng: np.random.Generator
) -> tuple[int, ...]:
    """Innermost factors, one an axis: whole vectors along the last, up to `most` with the rows."""
    whole = _vector_lengths(extents[-1], lanes)
    vector = whole[int(rng.integers(len(whole)))]
    vectors = math.ceil(vector / lanes)
    rows = [
        combination
        for combination in product(
            *([d for d in divisors(extent) if d <= most] for extent in extents[:-1])
        )
        if math.prod(combination) * vectors <= most
    ]
    full = [row for row in rows if math.prod(row) * vectors >= _FEWEST] or [
        max(rows, key=math.prod)
    ]
    return (*full[int(rng.integers(len(full)))], vector)


def _vector_lengths(extent: int, lanes: int) -> list[int]:
    """Divisors that are whole vectors; where there are none, whole halves of one, and so on.

    LLVM makes slow code, slowly, of a vector of 50; of 40 it makes two and a half of 16.
    """
    factors = [factor for factor in divisors(extent) if factor <= 4 * lanes]
    while not (whole := [factor for factor in factors if factor % lanes == 0]):
        lanes = max(1, lanes // 2)
    return whole


def _split(tile: TileKnob, inner: int, rng: np.random.Generator) -> list[int]:
    """All levels of a tile, given its innermost one; most of the rest goes to the outermost."""
    outer = tile.extent // inner
    factors = [1] * tile.width
    factors[-1] = inner
    for level in range(1, tile.width - 1):
        options = divisors(outer)
        # Half of the levels between stay untiled.
        chosen = 1 if rng.random() < 0.5 else options[int(rng.integers(len(options)))]
        factors[level] = chosen
        outer //= chosen
    factors[0] = outer
    return factors


def _choose(choice: ChoiceKnob, rng: np.random.Generator) -> int:
    """In parallel and with vectors; unrolled enough to keep the tile in registers."""
    if choice.role == "vectorize":
        return max(range(len(choice.choices)), key=lambda index: min(64, choice.choices[index]))
    least = 64 if choice.role == "unroll" else 2
    options = [index for index, amount in enumerate(choice.choices) if amount >= least]
    return options[int(rng.integers(len(options)))] if options else choice.stock
