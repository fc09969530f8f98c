"""A restriction that fits: the most promising part of a space that has at most so many points."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from schedenv.errors import InputError
from schedenv.space.knobs import (
    INLINE,
    ROOT,
    ChoiceKnob,
    LocationKnob,
    TileKnob,
    divisors,
    factorise,
)
from schedenv.space.restriction import ANY, Restriction
from schedenv.space.sketch import Sketch
from schedenv.space.space import Space

_POINTS_A_SKETCH = 16
"""A sketch with fewer points than this shows little, so fewer sketches are kept."""

_VECTOR_FACTOR = 32
_BLOCK_FACTOR = 4
"""Where the innermost factors start: a long vector along the last spatial axis, a small block of
registers along all others."""


@dataclass
class _Menu:
    """The values of one slot that are kept so far, and those that may follow, best first.

    Of a location, everything may follow in the end.
    """

    knob: str
    slot: int
    kept: list[int]
    waiting: list[int] = field(default_factory=list)
    is_location: bool = False
    everything: bool = False


def fit_restriction(space: Space, limit: int) -> Restriction:
    """Choose patterns that keep at most `limit` points; the same ones every time.

    Outermost factors follow from the others, which start at 1, innermost ones at a vector or a
    small block. Then the menus are widened by one value after the other, in turn, as long as the
    points fit: innermost factors, unrolling and locations first, the other annotations and the
    middle factors after them. A factor joins a menu only if it is one prime away from one that is
    there, so that single moves lead from each to each.

    Args:
        space: The whole space.
        limit: Most points, at least 1.

    Raises:
        InputError: `limit` is below 1.
    """
    if limit < 1:
        raise InputError(f"expected at least 1 point, got {limit}")
    count = min(len(space.sketches), max(1, limit // _POINTS_A_SKETCH))
    chosen = [round(n * (len(space.sketches) - 1) / max(1, count - 1)) for n in range(count)]
    patterns: dict[int, dict[str, str]] = {}
    for index in chosen:
        patterns[index] = _fit_sketch(space, space.sketches[index], limit // count)
    return Restriction(patterns)


def _fit_sketch(space: Space, sketch: Sketch, limit: int) -> dict[str, str]:
    early, late = list(_early_menus(sketch)), list(_late_menus(sketch))
    menus = early + late
    open_menus = list(early)
    while open_menus:
        for menu in list(open_menus):
            if not _widen(menu):
                open_menus.remove(menu)
            elif not _fits(space, sketch, menus, limit):
                _narrow(menu)
                open_menus.remove(menu)
        open_menus += late
        late = []
    return _patterns(sketch, menus)


def _fits(space: Space, sketch: Sketch, menus: list[_Menu], limit: int) -> bool:
    try:
        return bool(Restriction({sketch.index: _patterns(sketch, menus)}).points(space, limit))
    except InputError:
        return False


def _early_menus(sketch: Sketch) -> Iterator[_Menu]:
    """Innermost factors (the last spatial axis first), unrolling, locations."""
    spatial = [tile for tile in sketch.tiles() if not tile.is_reduction]
    tiles = [*reversed(spatial), *(tile for tile in sketch.tiles() if tile.is_reduction)]
    for tile in tiles:
        if tile.extent > 1:
            is_vector = bool(spatial) and tile is spatial[-1]
            yield _factor_menu(tile, tile.width - 1, _VECTOR_FACTOR if is_vector else _BLOCK_FACTOR)
    yield from (_choice_menu(knob) for knob in sketch.choices() if knob.role == "unroll")
    yield from (
        _Menu(knob.name, 0, [ROOT], [INLINE], is_location=True) for knob in sketch.locations()
    )


def _late_menus(sketch: Sketch) -> Iterator[_Menu]:
    """The other annotations, then the middle factors of the large tiles."""
    yield from (_choice_menu(knob) for knob in sketch.choices() if knob.role != "unroll")
    for tile in sorted(sketch.tiles(), key=lambda tile: -tile.extent):
        if tile.extent > 1:
            yield from (_factor_menu(tile, slot, 1) for slot in range(tile.width - 2, 0, -1))


def _factor_menu(tile: TileKnob, slot: int, target: int) -> _Menu:
    """All divisors, the closest to `target` first, each one prime away from an earlier one."""
    limit = tile.innermost_limit if slot == tile.width - 1 else tile.extent
    left = [divisor for divisor in divisors(tile.extent) if divisor <= limit]
    ordered: list[int] = []
    while left:
        near = [d for d in left if not ordered or any(_one_prime_apart(d, o) for o in ordered)]
        if not near:
            break
        best = min(near, key=lambda d: (abs(math.log(d / target)), d))
        ordered.append(best)
        left.remove(best)
    return _Menu(tile.name, slot, ordered[:1], ordered[1:])


def _one_prime_apart(one: int, other: int) -> bool:
    low, high = sorted((one, other))
    return high % low == 0 and sum(count for _, count in factorise(high // low)) == 1


def _choice_menu(knob: ChoiceKnob) -> _Menu:
    """The stock choice, then those closest to it in the list."""
    order = sorted(range(len(knob.choices)), key=lambda index: (abs(index - knob.stock), -index))
    values = [knob.choices[index] for index in order]
    return _Menu(knob.name, 0, values[:1], values[1:])


def _widen(menu: _Menu) -> bool:
    """Keep one more value; False if there is none."""
    if menu.waiting:
        menu.kept.append(menu.waiting.pop(0))
        return True
    if menu.is_location and not menu.everything:
        menu.everything = True
        return True
    return False


def _narrow(menu: _Menu) -> None:
    """Take the last widening back."""
    if menu.everything:
        menu.everything = False
    else:
        menu.kept.pop()


def _patterns(sketch: Sketch, menus: list[_Menu]) -> dict[str, str]:
    """The menus as patterns by name of the knob."""
    texts = {
        (menu.knob, menu.slot): ANY if menu.everything else "|".join(map(str, sorted(menu.kept)))
        for menu in menus
    }
    patterns: dict[str, str] = {}
    for knob in sketch.knobs:
        if isinstance(knob, TileKnob):
            inner = [texts.get((knob.name, slot), "1") for slot in range(1, knob.width)]
            patterns[knob.name] = ",".join([ANY, *inner])
        elif isinstance(knob, (ChoiceKnob, LocationKnob)):
            patterns[knob.name] = texts[knob.name, 0]
    return patterns
