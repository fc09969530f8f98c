"""The schedule space of a task: its sketches, its legal points, its moves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.errors import ConstraintError, IllegalPointError
from schedenv.space.knobs import LocationKnob, TileKnob, primes_of
from schedenv.space.locations import Consumer, LocationOracle
from schedenv.space.moves import FactorMove, Move, SetMove, SketchMove
from schedenv.space.point import Point
from schedenv.space.search_space import SearchSpace
from schedenv.space.sketch import read_sketch

SPACE_VERSION = 1
"""Part of every record's key; raised when the meaning of a point changes."""

_CANONICAL_CACHE = 1 << 16


class Space(SearchSpace):
    """All points of one module on one machine.

    Invariants, property-tested: a legal point survives TVM unchanged (its decisions read back
    after replay are the point's); two points have the same program if and only if they have the
    same canonical form; every legal move leads to a legal point and its inverse leads back;
    applying a point gives the same program in every process.

    Args:
        mod: A module with one function, `main`.
        hardware: The machine that the schedules are for.

    Attributes:
        mod: The module as MetaSchedule normalised it.
        hardware: The machine that the schedules are for.
        sketches: The structural choices.
        width: Slots of the widest sketch.
    """

    def __init__(self, mod: Any, hardware: hw.Hardware) -> None:
        design = tvm_adapter.design_space(mod, hw.target(hardware))
        lanes = hardware.vector_lanes("float32")
        parallel = tuple(factor * hardware.cores for factor in (1, 4, 64))
        vectorize = tuple(factor * lanes for factor in (1, 2, 4, 8))
        self.mod = design.mod
        self.hardware = hardware
        self.sketches = tuple(
            read_sketch(index, design.mod, trace, (1, *parallel), vectorize)
            for index, trace in enumerate(design.traces)
        )
        self.width = max(sketch.width for sketch in self.sketches)
        self._postprocs = design.postprocs
        self._locations = LocationOracle(design.mod)
        self._canonical = lru_cache(_CANONICAL_CACHE)(self._canonical_uncached)

    # -- points ---------------------------------------------------------------------------------

    def default(self, sketch: int = 0) -> Point:
        """The plainest point of a sketch: nothing tiled, stock annotations, blocks at the root."""
        return Point(sketch, self.sketches[sketch].default_values())

    def sample(self, rng: np.random.Generator) -> Point:
        """Draw a sketch uniformly, then each knob uniformly from its legal values."""
        sketch = self.sketches[int(rng.integers(len(self.sketches)))]
        values = list(sketch.default_values())
        for knob in sketch.knobs:
            if not isinstance(knob, LocationKnob):
                values[knob.start : knob.start + knob.width] = knob.sample(rng)
        for location in sketch.locations():
            candidates = self._locations.candidates(sketch, location, values)
            values[location.start] = candidates[int(rng.integers(len(candidates)))]
        return Point(sketch.index, tuple(values))

    def size(self) -> float:
        """How many points there are, locations (a handful for each block) left out."""
        return float(
            sum(
                math.prod(
                    float(knob.count())
                    for knob in sketch.knobs
                    if not isinstance(knob, LocationKnob)
                )
                for sketch in self.sketches
            )
        )

    def explain_illegal(self, point: Point) -> str | None:
        """Why `point` is not of this space; None if it is."""
        if not 0 <= point.sketch < len(self.sketches):
            return f"expected a sketch from 0 to {len(self.sketches) - 1}, got {point.sketch}"
        sketch = self.sketches[point.sketch]
        if len(point.values) != sketch.width:
            return f"expected {sketch.width} values, got {len(point.values)}"
        for knob in sketch.knobs:
            values = point.values[knob.start : knob.start + knob.width]
            if isinstance(knob, LocationKnob):
                candidates = self._locations.candidates(sketch, knob, point.values)
                if values[0] not in candidates:
                    return f"{knob.name}: expected one of {list(candidates)}, got {values[0]}"
            elif not knob.is_legal(values):
                return f"{knob.name}: {list(values)} is not one of its {knob.count()} values"
        return None

    def location_candidates(self, point: Point, knob: LocationKnob) -> tuple[int, ...]:
        """Legal values of a compute location at a point, ascending; -1, the root, is one."""
        return self._locations.candidates(self.sketches[point.sketch], knob, point.values)

    def location_consumer(self, point: Point, knob: LocationKnob) -> Consumer:
        """What decides the candidates of a compute location, given the earlier locations."""
        return self._locations.consumer(self.sketches[point.sketch], knob, point.values)

    # -- moves ----------------------------------------------------------------------------------

    def legal_moves(self, point: Point) -> list[Move]:
        """Every single edit that leads to a legal point, in a fixed order."""
        return [move for move in self._moves(point) if self._keeps_locations(point, move)]

    def transfer(self, point: Point, sketch: int) -> Point:
        """`point` expressed in another sketch: knobs of the same name keep their values.

        A knob that the old sketch does not have takes its default; a location that would be
        illegal there goes to the root.
        """
        source, destination = self.sketches[point.sketch], self.sketches[sketch]
        known = {(knob.kind, knob.name, knob.width): knob for knob in source.knobs}
        values = list(destination.default_values())
        for knob in destination.knobs:
            old = known.get((knob.kind, knob.name, knob.width))
            if old is None or isinstance(knob, LocationKnob):
                continue
            kept = point.values[old.start : old.start + old.width]
            if knob.is_legal(kept):
                values[knob.start : knob.start + knob.width] = kept
        for location in destination.locations():
            old = known.get((location.kind, location.name, location.width))
            if old is not None:
                wanted = point.values[old.start]
                if wanted in self._locations.candidates(destination, location, values):
                    values[location.start] = wanted
        return Point(sketch, tuple(values))

    def _moves(self, point: Point) -> Iterator[Move]:
        sketch = self.sketches[point.sketch]
        for index, knob in enumerate(sketch.knobs):
            if isinstance(knob, TileKnob):
                yield from _factor_moves(index, knob, point.values)
                continue
            old = point.values[knob.start]
            options: Sequence[int] = (
                self._locations.candidates(sketch, knob, point.values)
                if isinstance(knob, LocationKnob)
                else range(len(knob.choices))
            )
            yield from (SetMove(index, knob.start, old, new) for new in options if new != old)
        for other in self.sketches:
            if other.index != point.sketch:
                yield SketchMove(point, self.transfer(point, other.index))

    def _keeps_locations(self, point: Point, move: Move) -> bool:
        """Whether the locations stay legal; everything else is legal by construction."""
        if isinstance(move, SketchMove):
            return True
        moved = move.apply(point)
        sketch = self.sketches[point.sketch]
        return all(
            moved.values[knob.start] in self._locations.candidates(sketch, knob, moved.values)
            for knob in sketch.locations()
        )

    # -- programs -------------------------------------------------------------------------------

    def apply(self, point: Point) -> Any:
        """Replay the point and run the postprocessors: a fresh TVM schedule.

        Raises:
            IllegalPointError: TVM changed a decision, so the point is not of this space.
            ConstraintError: A primitive or a postprocessor refused.
        """
        sketch = self.sketches[point.sketch]
        schedule = tvm_adapter.replay(self.mod, *sketch.bind(point.values))
        kept = sketch.read_back(schedule.trace)
        if kept != point.values:
            raise IllegalPointError(f"TVM changed {point} to {Point(point.sketch, kept)}")
        tvm_adapter.postprocess(schedule, self._postprocs)
        return schedule

    def canonical(self, point: Point) -> str:
        """The canonical form: equal for two points if and only if their programs are equal.

        It is the structural hash of the scheduled program. Which points coincide is decided
        deep in TVM's postprocessors (how far loops fuse under an annotation depends on strides,
        on unit loops, on siblings); a rule of our own would be wrong somewhere, the hash is not.
        A point that TVM refuses has no program and is its own canonical form.
        """
        return self._canonical(point)

    def _canonical_uncached(self, point: Point) -> str:
        try:
            return tvm_adapter.structural_hash(self.apply(point).mod)
        except ConstraintError:
            return f"refused {point}"


def _factor_moves(index: int, knob: TileKnob, values: Sequence[int]) -> Iterator[FactorMove]:
    innermost = knob.start + knob.width - 1
    slots = range(knob.start, knob.start + knob.width)
    for source in slots:
        for prime in primes_of(values[source]):
            for destination in slots:
                if destination == source:
                    continue
                if destination == innermost and values[innermost] * prime > knob.innermost_limit:
                    continue
                yield FactorMove(index, source, destination, prime)
