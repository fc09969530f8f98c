"""A point of one program in the space of a program like it: where a search may begin."""

from __future__ import annotations

import math
from collections.abc import Sequence

from schedenv.space.knobs import ChoiceKnob, TileKnob, divisors
from schedenv.space.point import Point
from schedenv.space.search_space import SearchSpace
from schedenv.space.sketch import Sketch

_WHOLE = 16
"""Largest power of two that a factor keeps, if it can: what makes vectors whole."""


def carried(point: Point, source: Sketch, target: SearchSpace) -> Point | None:
    """The point of `target` that is most like `point`.

    Tiles keep their factors from the innermost level outwards, or take what is nearest among the
    divisors of the new extent; annotations keep their amounts, blocks the loops that they are
    under, or come as near as they can.

    Args:
        point: A point of another program.
        source: Its sketch.
        target: The space of this one.

    Returns:
        None if no sketch of `target` has the same tiles, or if what comes of it is not legal.
    """
    sketch = _like(source, target.sketches)
    if sketch is None:
        return None
    values = [0] * sketch.width
    for old, new in zip(source.tiles(), sketch.tiles(), strict=True):
        factors = point.values[old.start : old.start + old.width]
        values[new.start : new.start + new.width] = _tiled(new, factors)
    amounts = {knob.role: knob.choices[point.values[knob.start]] for knob in source.choices()}
    for choice in sketch.choices():
        values[choice.start] = _nearest_choice(choice, amounts.get(choice.role))
    loops = [point.values[knob.start] for knob in source.locations()]
    for number, location in enumerate(sketch.locations()):
        here = Point(sketch.index, tuple(values))
        candidates = target.location_candidates(here, location)
        if not candidates:
            return None
        wanted = loops[number] if number < len(loops) else candidates[-1]
        values[location.start] = min(candidates, key=lambda value: abs(value - wanted))
    found = Point(sketch.index, tuple(values))
    return found if target.is_legal(found) else None


def distance(one: Sketch, other: Sketch) -> float:
    """How far the extents of two sketches are from each other, in halvings; infinite if unlike."""
    if _tiling(one) != _tiling(other):
        return math.inf
    pairs = zip(one.tiles(), other.tiles(), strict=True)
    return sum(abs(math.log2(old.extent / new.extent)) for old, new in pairs)


def _like(source: Sketch, sketches: Sequence[Sketch]) -> Sketch | None:
    """The sketch with the same tiles; of several, the one with as many compute locations."""
    same = [sketch for sketch in sketches if _tiling(sketch) == _tiling(source)]
    blocks = len(list(source.locations()))
    return min(
        same,
        key=lambda sketch: (
            abs(len(list(sketch.locations())) - blocks),
            abs(sketch.index - source.index),
        ),
        default=None,
    )


def _tiling(sketch: Sketch) -> tuple[tuple[int, bool], ...]:
    return tuple((tile.width, tile.is_reduction) for tile in sketch.tiles())


def _tiled(tile: TileKnob, wanted: Sequence[int]) -> list[int]:
    """Factors of the tile's extent like the wanted ones; the outermost level takes the rest."""
    factors = [1] * tile.width
    rest = tile.extent
    for level in range(tile.width - 1, 0, -1):
        limit = tile.innermost_limit if level == tile.width - 1 else rest
        factors[level] = _nearest_divisor(rest, wanted[level], limit)
        rest //= factors[level]
    factors[0] = rest
    return factors


def _nearest_divisor(extent: int, wanted: int, limit: int) -> int:
    """The divisor nearest to what is wanted among those that keep most of its powers of two."""
    whole = math.gcd(wanted, _WHOLE)
    return min(
        (divisor for divisor in divisors(extent) if divisor <= limit),
        key=lambda divisor: (-math.gcd(divisor, whole), abs(math.log(divisor / wanted)), divisor),
    )


def _nearest_choice(knob: ChoiceKnob, amount: int | None) -> int:
    if amount is None:
        return knob.stock
    return min(range(len(knob.choices)), key=lambda index: abs(knob.choices[index] - amount))
