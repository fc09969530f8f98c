"""Restrictions: which part of a space a sub-space keeps, as text that fits into a JSON file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from schedenv.errors import InputError, UnknownNameError
from schedenv.space.knobs import ChoiceKnob, Knob, LocationKnob, TileKnob, divisors
from schedenv.space.point import Point
from schedenv.space.sketch import Sketch
from schedenv.space.space import Space

MOST_POINTS = 100_000
"""A restriction that keeps more is refused: nobody measures them all."""

ANY = "*"


class Restriction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which sketches a sub-space keeps, and which values of each knob.

    A pattern has one part a slot, separated by commas; a part is `*` (anything) or the allowed
    numbers, separated by `|`. So `*,1,1,8|16` keeps the tilings whose innermost factor is 8 or 16
    and whose two middle ones are 1. The numbers of an annotation are its own (`parallel`: `2|32`,
    0 for off), those of a compute location are -2 (inlined), -1 (root) or a loop.

    Attributes:
        sketches: For each sketch that is kept, by index, a pattern by name of the knob. A knob
            that is not named is not restricted; knobs of one name share a pattern.
    """

    sketches: dict[int, dict[str, str]]

    @classmethod
    def parse(cls, text: str) -> Restriction:
        """Read the JSON form.

        Raises:
            InputError: `text` is not a restriction.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(
                "expected a restriction such as "
                '\'{"sketches": {"0": {"Z.v_j": "*,1,1,8|16", "unroll": "0|64"}}}\', '
                f"got {text[:80]!r} ({error})"
            ) from None

    def __str__(self) -> str:
        """The JSON form; `Restriction.parse` reads it back."""
        return msgspec.json.encode(self).decode()

    def points(self, space: Space, limit: int = MOST_POINTS) -> list[Point]:
        """All points that are kept, in a fixed order: by sketch, then by value.

        Raises:
            UnknownNameError: A knob's name is not known in its sketch.
            InputError: A sketch does not exist, a pattern is malformed, nothing is kept, or more
                than `limit` points are.
        """
        found: list[Point] = []
        for index in sorted(self.sketches):
            for point in self._points_of(space, index):
                found.append(point)
                if len(found) > limit:
                    raise InputError(
                        f"the restriction keeps more than {limit} points; narrow its patterns, or "
                        "allow more with --points"
                    )
        if not found:
            raise InputError(f"the restriction {self} keeps no point; widen its patterns")
        return sorted(found)

    def _points_of(self, space: Space, index: int) -> Iterator[Point]:
        if not 0 <= index < len(space.sketches):
            raise InputError(
                f"the restriction names the sketch {index}; expected 0 to {len(space.sketches) - 1}"
            )
        sketch = space.sketches[index]
        patterns = self.sketches[index]
        names = [knob.name for knob in sketch.knobs]
        for name in patterns:
            if name not in names:
                raise UnknownNameError(f"knob of sketch {index}", name, set(names))
        return _enumerate(
            space, sketch, [_parts(knob, patterns.get(knob.name)) for knob in sketch.knobs]
        )


Allowed = frozenset[int] | None
"""The numbers that a slot may hold; None for any."""


def _parts(knob: Knob, pattern: str | None) -> list[Allowed]:
    """A pattern as the allowed numbers of each of its knob's slots."""
    if pattern is None:
        return [None] * knob.width
    parts = pattern.split(",")
    if len(parts) != knob.width:
        raise InputError(
            f"{knob.name}: expected a pattern of {knob.width} parts separated by commas, got "
            f"{pattern!r}, which has {len(parts)}"
        )
    try:
        return [
            None if part.strip() == ANY else frozenset(int(number) for number in part.split("|"))
            for part in parts
        ]
    except ValueError:
        raise InputError(
            f"{knob.name}: expected numbers separated by '|', or '*', in each part of the "
            f"pattern, got {pattern!r}"
        ) from None


def _enumerate(space: Space, sketch: Sketch, parts: Sequence[Sequence[Allowed]]) -> Iterator[Point]:
    """The points that match, knob by knob: a location's candidates follow from what comes before.

    Locations come last in the trace, so they are placed last whatever their slots.
    """
    order = sorted(
        range(len(sketch.knobs)),
        key=lambda index: isinstance(sketch.knobs[index], LocationKnob),
    )

    def place(depth: int, values: tuple[int, ...]) -> Iterator[Point]:
        if depth == len(order):
            yield Point(sketch.index, values)
            return
        knob = sketch.knobs[order[depth]]
        for option in _options(space, knob, parts[order[depth]], Point(sketch.index, values)):
            end = knob.start + knob.width
            yield from place(depth + 1, (*values[: knob.start], *option, *values[end:]))

    return place(0, sketch.default_values())


def _options(
    space: Space, knob: Knob, allowed: Sequence[Allowed], point: Point
) -> list[tuple[int, ...]]:
    """The values of one knob that its pattern and the point so far allow."""
    if isinstance(knob, TileKnob):
        return [
            factors
            for factors in _tilings(knob.extent, allowed)
            if factors[-1] <= knob.innermost_limit
        ]
    (numbers,) = allowed
    if isinstance(knob, ChoiceKnob):
        return [
            (index,)
            for index, choice in enumerate(knob.choices)
            if numbers is None or choice in numbers
        ]
    candidates = space.location_candidates(point, knob)
    return [(value,) for value in candidates if numbers is None or value in numbers]


def _tilings(extent: int, allowed: Sequence[Allowed]) -> list[tuple[int, ...]]:
    """All ordered factorisations of `extent` whose slots hold allowed numbers."""
    first, rest = allowed[0], allowed[1:]
    if not rest:
        return [(extent,)] if first is None or extent in first else []
    return [
        (factor, *others)
        for factor in divisors(extent)
        if first is None or factor in first
        for others in _tilings(extent // factor, rest)
    ]
