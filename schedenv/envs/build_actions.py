"""The decisions of `Build-v0` and its flat action space: a schedule from nothing, knob by knob."""

from __future__ import annotations

import abc
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from schedenv.envs.layout import Layout
from schedenv.errors import InputError
from schedenv.space import (
    ChoiceKnob,
    Knob,
    LocationKnob,
    Point,
    SearchSpace,
    Sketch,
    SubSpace,
    TileKnob,
)
from schedenv.space.knobs import INLINE, divisors

MOST_FACTORS = 64
"""Divisors that a tiled extent may have."""

MOST_CHOICES = 8
"""Values that an annotation may have."""

MOST_LOCATIONS = 40
"""Compute locations that may be chosen: inlined, the root, then loops."""


@dataclass(frozen=True)
class Partial:
    """A schedule that is being built.

    Attributes:
        sketch: Its sketch; None if that is the next decision.
        values: Values of all slots; those not decided are the knobs' defaults.
        decided: How many slots of `decision_order` are decided.
    """

    sketch: int | None = None
    values: tuple[int, ...] = ()
    decided: int = 0


class BuildActions:
    """Maps action numbers to decisions, for one layout.

    Numbers come in four ranges: sketch k; the k-th divisor, ascending, of the extent of the tile
    whose level is being decided; annotation value k; compute location k - 2 (inlined, root,
    loops). The sketch is decided first, then the levels of each tile, outermost first, and the
    annotations, in the order of their slots, then the compute locations, whose legal values
    depend on all that. The innermost level of a tile follows from the others. A decision with
    one option only is taken for the agent, but for the sketch.
    """

    def __init__(self, layout: Layout) -> None:
        self._factor = layout.sketches
        self._choice = self._factor + MOST_FACTORS
        self._location = self._choice + MOST_CHOICES
        self._count = self._location + MOST_LOCATIONS

    @property
    def space(self) -> spaces.Discrete:
        """The Gymnasium space."""
        return spaces.Discrete(self._count)

    def check(self, space: SearchSpace, name: str) -> None:
        """Refuse a task with more options than there are numbers.

        Raises:
            InputError: A limit is exceeded; the message names it.
        """
        extents = {tile.extent for sketch in space.sketches for tile in sketch.tiles()}
        menus = {choice.choices for sketch in space.sketches for choice in sketch.choices()}
        counts = {
            "divisors of an extent": (
                max(map(len, map(divisors, extents)), default=0),
                MOST_FACTORS,
            ),
            "values of an annotation": (max(map(len, menus), default=0), MOST_CHOICES),
        }
        for what, (count, most) in counts.items():
            if count > most:
                raise InputError(
                    f"{name} has {count} {what}, Build-v0 has actions for {most}; use Edit-v0, "
                    "which has no such limit"
                )

    def decide(self, options: Options, partial: Partial, action: int) -> Partial | None:
        """The schedule after a decision and those that follow from it; None if it is illegal."""
        value = self.values(options, partial).get(action)
        if value is None:
            return None
        if partial.sketch is None:
            return options.settle(Partial(value, options.space.sketches[value].default_values()))
        return options.settle(options.extend(partial, value))

    def values(self, options: Options, partial: Partial) -> dict[int, int]:
        """The legal actions at a schedule, each with the value that it decides on."""
        if partial.sketch is None:
            return {value: value for value in options.legal(partial)}
        sketch = options.space.sketches[partial.sketch]
        slot = options.order(partial.sketch)[partial.decided]
        knob = knob_at(sketch, slot)
        legal = options.legal(partial)
        if isinstance(knob, TileKnob):
            numbers = {d: self._factor + k for k, d in enumerate(divisors(knob.extent))}
            return {numbers[value]: value for value in legal}
        if isinstance(knob, ChoiceKnob):
            return {self._choice + value: value for value in legal}
        first = self._location - INLINE
        return {first + v: v for v in legal if v - INLINE < MOST_LOCATIONS}

    def mask(self, options: Options, partial: Partial) -> npt.NDArray[np.bool_]:
        """Which actions are legal at a schedule, shape (n,)."""
        mask = np.zeros(self._count, np.bool_)
        mask[list(self.values(options, partial))] = True
        return mask


class Options(abc.ABC):
    """Which values a decision may take, so that the schedule can still become a legal point.

    Attributes:
        space: The points.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._orders = tuple(decision_order(sketch) for sketch in space.sketches)

    @abc.abstractmethod
    def legal(self, partial: Partial) -> Sequence[int]:
        """The values of the next decision, ascending; at least one, unless all is decided."""

    def order(self, sketch: int) -> tuple[int, ...]:
        """The slots of a sketch in the order in which they are decided."""
        return self._orders[sketch]

    def is_complete(self, partial: Partial) -> bool:
        """Whether nothing is left to be decided."""
        return partial.sketch is not None and partial.decided == len(self.order(partial.sketch))

    def extend(self, partial: Partial, value: int) -> Partial:
        """The schedule with the next slot decided."""
        assert partial.sketch is not None
        slot = self.order(partial.sketch)[partial.decided]
        values = (*partial.values[:slot], value, *partial.values[slot + 1 :])
        return Partial(partial.sketch, values, partial.decided + 1)

    def settle(self, partial: Partial) -> Partial:
        """Take the decisions that have one option only."""
        while not self.is_complete(partial):
            legal = self.legal(partial)
            if len(legal) != 1:
                break
            partial = self.extend(partial, legal[0])
        return partial

    def point(self, partial: Partial) -> Point:
        """The point that a complete schedule is."""
        assert partial.sketch is not None
        assert self.is_complete(partial)
        return Point(partial.sketch, partial.values)


class WholeOptions(Options):
    """Options of a whole space: the rules of its knobs."""

    def legal(self, partial: Partial) -> Sequence[int]:
        """See `Options`."""
        if partial.sketch is None:
            return range(len(self.space.sketches))
        sketch = self.space.sketches[partial.sketch]
        slot = self.order(partial.sketch)[partial.decided]
        knob = knob_at(sketch, slot)
        if isinstance(knob, ChoiceKnob):
            return range(len(knob.choices))
        if isinstance(knob, LocationKnob):
            return self.space.location_candidates(Point(partial.sketch, partial.values), knob)
        rest = knob.extent
        for value in partial.values[knob.start : slot]:
            rest //= value
        innermost = knob.start + knob.width - 1
        if slot == innermost:
            return (rest,)
        if slot == innermost - 1:
            return [d for d in divisors(rest) if rest // d <= knob.innermost_limit]
        return divisors(rest)


class ListedOptions(Options):
    """Options of a sub-space: the values that lead to one of its points."""

    def __init__(self, space: SubSpace) -> None:
        super().__init__(space)
        # For every sequence of decisions that leads to a point, what may come next.
        after: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for point in space.points():
            after[()].add(point.sketch)
            path: tuple[int, ...] = (point.sketch,)
            for slot in self.order(point.sketch):
                after[path].add(point.values[slot])
                path = (*path, point.values[slot])
        self._after = {path: tuple(sorted(values)) for path, values in after.items()}

    def legal(self, partial: Partial) -> Sequence[int]:
        """See `Options`."""
        if partial.sketch is None:
            return self._after[()]
        slots = self.order(partial.sketch)[: partial.decided]
        return self._after[(partial.sketch, *(partial.values[slot] for slot in slots))]


def make_options(space: SearchSpace) -> Options:
    """The options of a space."""
    return ListedOptions(space) if isinstance(space, SubSpace) else WholeOptions(space)


def decision_order(sketch: Sketch) -> tuple[int, ...]:
    """The slots of a sketch as `Build-v0` decides them: compute locations last, by the trace."""
    first = [knob for knob in sketch.knobs if not isinstance(knob, LocationKnob)]
    last = sorted(sketch.locations(), key=lambda knob: knob.instruction)
    return tuple(
        slot for knob in (*first, *last) for slot in range(knob.start, knob.start + knob.width)
    )


def knob_at(sketch: Sketch, slot: int) -> Knob:
    """The knob that a slot belongs to."""
    return next(knob for knob in sketch.knobs if knob.start <= slot < knob.start + knob.width)
