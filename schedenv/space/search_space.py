"""What agents, environments and the tuning loop need of a set of points."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schedenv.errors import IllegalPointError
from schedenv.space.knobs import LocationKnob, TileKnob
from schedenv.space.moves import Move
from schedenv.space.point import Point
from schedenv.space.sketch import Sketch


class SearchSpace(abc.ABC):
    """A set of legal points with moves between them: a whole `Space`, or a part of one.

    Invariants: `sample` and every legal move give legal points, and the inverse of a legal move
    is legal where it leads.

    Attributes:
        sketches: The structural choices; a part of a space keeps all of them, so that a point
            means the same in both.
        width: Slots of the widest sketch.
    """

    sketches: tuple[Sketch, ...]
    width: int

    @abc.abstractmethod
    def default(self, sketch: int = 0) -> Point:
        """The plainest point of a sketch."""

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator) -> Point:
        """Draw a point."""

    @abc.abstractmethod
    def size(self) -> float:
        """How many points there are."""

    @abc.abstractmethod
    def explain_illegal(self, point: Point) -> str | None:
        """Why `point` is not one of the points; None if it is."""

    @abc.abstractmethod
    def location_candidates(self, point: Point, knob: LocationKnob) -> tuple[int, ...]:
        """Values that a compute location may take at a legal point, ascending."""

    @abc.abstractmethod
    def legal_moves(self, point: Point) -> list[Move]:
        """Every single edit that leads to a legal point, in a fixed order."""

    @abc.abstractmethod
    def transfer(self, point: Point, sketch: int) -> Point:
        """`point` expressed in another sketch."""

    @abc.abstractmethod
    def canonical(self, point: Point) -> str:
        """The canonical form: equal for two points if and only if their programs are equal."""

    def is_legal(self, point: Point) -> bool:
        """Whether `point` is one of the points."""
        return self.explain_illegal(point) is None

    def is_legal_move(self, point: Point, move: Move) -> bool:
        """Whether `move` can be applied to `point` and leads to a legal point."""
        try:
            return self.is_legal(move.apply(point))
        except (IllegalPointError, IndexError):
            return False

    def neighbours(self, point: Point) -> list[Point]:
        """The points one legal move away."""
        return [move.apply(point) for move in self.legal_moves(point)]

    def encode(self, points: Sequence[Point]) -> npt.NDArray[np.int32]:
        """Points as rows of (sketch, values..., padding of zeros), shape (n, 1 + width)."""
        rows = np.zeros((len(points), 1 + self.width), dtype=np.int32)
        for row, point in zip(rows, points, strict=True):
            row[: 1 + len(point.values)] = point.vector
        return rows

    def decode(self, rows: npt.NDArray[np.int32]) -> list[Point]:
        """The points that `encode` was given."""
        return [
            Point(int(row[0]), tuple(int(v) for v in row[1 : 1 + self.sketches[row[0]].width]))
            for row in rows
        ]

    def describe(self, point: Point) -> str:
        """The point as a person would read it, one knob a line."""
        sketch = self.sketches[point.sketch]
        lines = [f"sketch {point.sketch} of {len(self.sketches)}"]
        for knob in sketch.knobs:
            values = point.values[knob.start : knob.start + knob.width]
            if isinstance(knob, TileKnob):
                text = " x ".join(map(str, values))
            elif isinstance(knob, LocationKnob):
                text = {-2: "inlined", -1: "root"}.get(values[0], f"loop {values[0]}")
            else:
                text = str(knob.choices[values[0]] or "off")
            lines.append(f"  {knob.name:<24} {text}")
        return "\n".join(lines)
