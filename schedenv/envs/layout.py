"""The fixed-size layout that every task's sketches are mapped onto.

One policy can then act on every task: slot k of an observation and action number k mean the same
everywhere. A task that does not fit is refused with the limit's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from schedenv.errors import InputError
from schedenv.space import ChoiceKnob, LocationKnob, SearchSpace, Sketch, TileKnob

ROLES = ("unroll", "parallel", "vectorize")


@dataclass(frozen=True)
class Layout:
    """Sizes of the spaces.

    Attributes:
        sketches: Most sketches that a task may have.
        tiles: Most tile knobs that a sketch may have.
        levels: Most levels that a tile may have.
        locations: Most compute-location knobs that a sketch may have.
        stores: Most buffer stores that a program may have; for the observation's piece `stores`.
    """

    sketches: int = 12
    tiles: int = 12
    levels: int = 4
    locations: int = 6
    stores: int = 16

    @classmethod
    def of(cls, sizes: Mapping[str, int]) -> Layout:
        """The default layout with some sizes replaced.

        Raises:
            InputError: No such size, or one below 1.
        """
        known = {field.name for field in fields(cls)}
        for name, size in sizes.items():
            if name not in known or size < 1:
                raise InputError(
                    f"expected layout sizes of at least 1 for {', '.join(sorted(known))}; "
                    f"got {name!r}: {size!r}"
                )
        return cls(**sizes)

    @property
    def slots(self) -> int:
        """Entries of the knob vector: tile levels, then roles, then locations."""
        return self.tiles * self.levels + len(ROLES) + self.locations

    def check(self, space: SearchSpace, name: str) -> None:
        """Refuse a task that does not fit.

        Raises:
            InputError: A limit is exceeded; the message names it.
        """
        needed = {
            "sketches": len(space.sketches),
            "tiles": max(len(list(sketch.tiles())) for sketch in space.sketches),
            "levels": max((t.width for s in space.sketches for t in s.tiles()), default=0),
            "locations": max(len(list(sketch.locations())) for sketch in space.sketches),
        }
        for limit, count in needed.items():
            allowed = getattr(self, limit)
            if count > allowed:
                raise InputError(
                    f"{name} has {count} {limit}, the environment's spaces hold {allowed}; "
                    f"raise it with layout={{'{limit}': {count}}}"
                )

    def positions(self, sketch: Sketch) -> list[tuple[int, int]]:
        """For each slot of a point's values, its entry of the knob vector.

        Returns:
            (slot of the values, entry of the knob vector) pairs.
        """
        pairs = []
        tile = location = 0
        for knob in sketch.knobs:
            if isinstance(knob, TileKnob):
                first = tile * self.levels
                pairs += [(knob.start + level, first + level) for level in range(knob.width)]
                tile += 1
            elif isinstance(knob, ChoiceKnob):
                entry = self.tiles * self.levels + ROLES.index(knob.role)
                pairs.append((knob.start, entry))
            elif isinstance(knob, LocationKnob):
                entry = self.tiles * self.levels + len(ROLES) + location
                pairs.append((knob.start, entry))
                location += 1
        return pairs
