"""The flat action space of `Edit-v0`: what each number does to a point."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from schedenv.envs.layout import ROLES, Layout
from schedenv.space import FactorMove, Move, Point, SearchSpace, SetMove, Sketch, SketchMove
from schedenv.space.knobs import primes_of

STOP = 0


@dataclass(frozen=True)
class _TileAction:
    """Move the smallest or largest prime of one level to another."""

    tile: int
    source: int
    destination: int
    largest: bool


@dataclass(frozen=True)
class _StepAction:
    """Go to the next lower or higher value of an annotation (by role) or a location."""

    role: str | None
    location: int
    up: bool


@dataclass(frozen=True)
class _SketchAction:
    """Go to a sketch."""

    sketch: int


_Action = _TileAction | _StepAction | _SketchAction


class EditActions:
    """Maps action numbers to moves, for one layout.

    Number 0 is STOP. Then come: go to sketch k; for each tile, ordered pair of levels and choice
    of smallest or largest prime, move that factor; one step down or up for each annotation and
    each compute location. A number that has no meaning at a point, or leads to an illegal one, is
    illegal there.

    Example:
        >>> import gymnasium, schedenv
        >>> env = gymnasium.make("schedenv/Edit-v0", reward="recorded", table="gmm")
        >>> env.action_space, 1 + 12 + 12 * 12 * 2 + 3 * 2 + 6 * 2
        (Discrete(319), 319)
        >>> _, _ = env.reset(seed=0)
        >>> mask = env.unwrapped.action_masks()
        >>> mask.shape, mask.dtype, bool(mask[STOP])
        ((319,), dtype('bool'), True)
        >>> env.close()
    """

    def __init__(self, layout: Layout) -> None:
        pairs = list(itertools.permutations(range(layout.levels), 2))
        self._table: list[_Action] = [
            *(_SketchAction(sketch) for sketch in range(layout.sketches)),
            *(
                _TileAction(tile, source, destination, largest)
                for tile in range(layout.tiles)
                for source, destination in pairs
                for largest in (False, True)
            ),
            *(_StepAction(role, -1, up) for role in ROLES for up in (False, True)),
            *(
                _StepAction(None, location, up)
                for location in range(layout.locations)
                for up in (False, True)
            ),
        ]

    @property
    def space(self) -> spaces.Discrete:
        """The Gymnasium space."""
        return spaces.Discrete(1 + len(self._table))

    def move(self, space: SearchSpace, point: Point, action: int) -> Move | None:
        """The legal move that an action number means at a point; None if it is illegal or STOP."""
        if action == STOP:
            return None
        meaning = self._table[action - 1]
        match meaning:
            case _SketchAction():
                move: Move | None = _sketch_move(space, point, meaning)
            case _TileAction():
                move = _tile_move(space, point, meaning)
            case _StepAction():
                move = _step_move(space, point, meaning)
        return move if move is not None and space.is_legal_move(point, move) else None

    def mask(self, space: SearchSpace, point: Point) -> npt.NDArray[np.bool_]:
        """Which actions are legal at a point, shape (n,); STOP always is."""
        mask = np.zeros(1 + len(self._table), np.bool_)
        mask[STOP] = True
        for action in self._candidates(space.sketches[point.sketch], point):
            mask[action] = self.move(space, point, action) is not None
        return mask

    def _candidates(self, sketch: Sketch, point: Point) -> Iterator[int]:
        """Actions that may be legal: of the many about tiles only those with a factor to move."""
        tiles = list(sketch.tiles())
        for number, meaning in enumerate(self._table, start=1):
            if isinstance(meaning, _TileAction):
                if meaning.tile >= len(tiles):
                    continue
                tile = tiles[meaning.tile]
                if meaning.source >= tile.width or point.values[tile.start + meaning.source] == 1:
                    continue
            yield number


def _sketch_move(space: SearchSpace, point: Point, action: _SketchAction) -> Move | None:
    if action.sketch >= len(space.sketches) or action.sketch == point.sketch:
        return None
    return SketchMove(point, space.transfer(point, action.sketch))


def _tile_move(space: SearchSpace, point: Point, action: _TileAction) -> Move | None:
    sketch = space.sketches[point.sketch]
    tiles = list(sketch.tiles())
    if action.tile >= len(tiles):
        return None
    tile = tiles[action.tile]
    if max(action.source, action.destination) >= tile.width:
        return None
    primes = primes_of(point.values[tile.start + action.source])
    # Where both ends are the same prime, one action is enough.
    if not primes or (action.largest and len(primes) == 1):
        return None
    return FactorMove(
        sketch.knobs.index(tile),
        tile.start + action.source,
        tile.start + action.destination,
        primes[-1 if action.largest else 0],
    )


def _step_move(space: SearchSpace, point: Point, action: _StepAction) -> Move | None:
    sketch = space.sketches[point.sketch]
    if action.role is not None:
        knob = next((knob for knob in sketch.choices() if knob.role == action.role), None)
        if knob is None:
            return None
        index, slot = sketch.knobs.index(knob), knob.start
        options: list[int] = list(range(len(knob.choices)))
    else:
        locations = list(sketch.locations())
        if action.location >= len(locations):
            return None
        location = locations[action.location]
        index, slot = sketch.knobs.index(location), location.start
        options = list(space.location_candidates(point, location))
    position = options.index(point.values[slot]) + (1 if action.up else -1)
    if not 0 <= position < len(options):
        return None
    return SetMove(index, slot, point.values[slot], options[position])
