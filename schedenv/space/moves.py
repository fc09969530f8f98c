"""Moves: the edits that turn one point into a neighbouring one, each with its inverse."""

from __future__ import annotations

from dataclasses import dataclass

from schedenv.errors import IllegalPointError
from schedenv.space.point import Point


@dataclass(frozen=True)
class FactorMove:
    """Move a factor from one level of a tile to another; the product is conserved.

    Attributes:
        knob: Index of the tile knob in its sketch.
        source: Slot (in the point's values) that gives the factor.
        destination: Slot that receives it.
        factor: What is moved, at least 2.
    """

    knob: int
    source: int
    destination: int
    factor: int

    def apply(self, point: Point) -> Point:
        """The edited point.

        Raises:
            IllegalPointError: The source slot is not divisible by the factor.
        """
        values = list(point.values)
        if values[self.source] % self.factor:
            raise IllegalPointError(
                f"cannot take the factor {self.factor} from slot {self.source} "
                f"that holds {values[self.source]}"
            )
        values[self.source] //= self.factor
        values[self.destination] *= self.factor
        return Point(point.sketch, tuple(values))

    def inverse(self) -> FactorMove:
        """The move that undoes this one."""
        return FactorMove(self.knob, self.destination, self.source, self.factor)


@dataclass(frozen=True)
class SetMove:
    """Set a choice or a compute location to another value.

    Attributes:
        knob: Index of the knob in its sketch.
        slot: The knob's slot.
        old: The value before; the move applies only to points that hold it.
        new: The value after.
    """

    knob: int
    slot: int
    old: int
    new: int

    def apply(self, point: Point) -> Point:
        """The edited point.

        Raises:
            IllegalPointError: The slot does not hold `old`.
        """
        values = list(point.values)
        if values[self.slot] != self.old:
            raise IllegalPointError(
                f"expected {self.old} in slot {self.slot}, found {values[self.slot]}"
            )
        values[self.slot] = self.new
        return Point(point.sketch, tuple(values))

    def inverse(self) -> SetMove:
        """The move that undoes this one."""
        return SetMove(self.knob, self.slot, self.new, self.old)


@dataclass(frozen=True)
class SketchMove:
    """Go to another sketch, keeping the knobs that both have.

    The knobs that only the old sketch has are lost on the way, so the move remembers both ends;
    that is what makes it invertible.
    """

    old: Point
    new: Point

    def apply(self, point: Point) -> Point:
        """The point in the other sketch.

        Raises:
            IllegalPointError: `point` is not the one that the move starts from.
        """
        if point != self.old:
            raise IllegalPointError(f"this move starts from {self.old}, not from {point}")
        return self.new

    def inverse(self) -> SketchMove:
        """The move that undoes this one."""
        return SketchMove(self.new, self.old)


Move = FactorMove | SetMove | SketchMove
