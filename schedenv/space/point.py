"""A point: one complete set of scheduling decisions, as a small integer vector."""

from __future__ import annotations

from typing import NamedTuple

from schedenv.errors import IllegalPointError


class Point(NamedTuple):
    """A sketch and a value for every slot of its knobs.

    A tile knob owns one slot a loop level, holding that level's factor; every other knob owns one
    slot. `schedenv.space.Sketch` says which slot belongs to which knob.

    Attributes:
        sketch: Index of the sketch in its space.
        values: One integer a slot.
    """

    sketch: int
    values: tuple[int, ...]

    @property
    def vector(self) -> tuple[int, ...]:
        """The sketch index followed by the values."""
        return (self.sketch, *self.values)

    def __str__(self) -> str:
        """The text form, `sketch:value,value,...`; `Point.parse` reads it back."""
        return f"{self.sketch}:" + ",".join(map(str, self.values))

    @classmethod
    def parse(cls, text: str) -> Point:
        """Read the text form.

        Raises:
            IllegalPointError: `text` is not of the form `sketch:value,value,...`.
        """
        sketch, colon, values = text.partition(":")
        try:
            if not colon:
                raise ValueError("no colon")
            return cls(int(sketch), tuple(int(value) for value in values.split(",") if value))
        except ValueError as error:
            raise IllegalPointError(
                f"expected a point as 'sketch:value,value,...', got {text[:80]!r} ({error})"
            ) from None


UNTUNED = Point(-1, ())
"""Stands for the program as it came, with no schedule at all: the baseline of every speed-up."""
