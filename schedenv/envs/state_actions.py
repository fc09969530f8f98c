"""The actions of `Edit-v0` on points as knob states; `EditActions` says what they mean."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import numpy.typing as npt

from schedenv.envs.actions import STOP
from schedenv.envs.layout import ROLES, Layout
from schedenv.space.batch import Bools, Indices
from schedenv.space.batch_locations import next_value
from schedenv.space.batch_whole import tilings
from schedenv.space.knob_states import KnobStates, States
from schedenv.space.knobs import INLINE, ChoiceKnob, TileKnob, divisors, factorise

NOWHERE = -1


class StateActions:
    """Applies action numbers to points, and tells which are legal, for all spaces at once.

    An action on a tile or an annotation is a look-up in a table of successors: one line a state,
    one column an action on such a knob.

    Args:
        states: The spaces.
        layout: Sizes that they fit into.

    Attributes:
        count: How many actions there are, STOP included.
    """

    def __init__(self, states: KnobStates, layout: Layout) -> None:
        self._states = states
        pairs = list(itertools.permutations(range(layout.levels), 2))
        self._on_a_tile = 2 * len(pairs)
        self._first_tile = 1 + layout.sketches
        self._first_role = self._first_tile + layout.tiles * self._on_a_tile
        self._first_location = self._first_role + 2 * len(ROLES)
        self.count = self._first_location + 2 * layout.locations
        self._kinds = [1, self._first_tile, self._first_role, self._first_location]
        self._number_actions()
        self._successors = np.full((len(states.values), self._on_a_tile), NOWHERE, np.int32)
        for number, sketch in enumerate(states.sketches):
            for knob, column in zip(sketch.knobs, states.knob_columns(sketch), strict=True):
                first, count = states.first[number, column], states.count[number, column]
                if isinstance(knob, TileKnob):
                    local = tile_successors(knob.extent, knob.width, knob.innermost_limit, layout)
                elif isinstance(knob, ChoiceKnob):
                    local = np.full((count, self._on_a_tile), NOWHERE, np.int32)
                    local[1:, 0] = np.arange(count - 1)
                    local[:-1, 1] = np.arange(1, count)
                else:
                    continue
                table = np.where(local == NOWHERE, NOWHERE, local + first)
                self._successors[first : first + count] = table
        self._possible = self._successors != NOWHERE
        self._ended, self._started = states.placing.loop_changes(self._successors)
        of_space = np.diff(states.first_sketch)[states.space_of]
        self._sketch_mask = np.arange(layout.sketches) < of_space[:, None]
        own = np.arange(len(states.sketches)) - states.first_sketch[states.space_of]
        self._sketch_mask[np.arange(len(own)), own] = False

    def apply(self, points: States, actions: Indices) -> tuple[States, Bools]:
        """Apply one action to each point.

        Args:
            points: Legal points, shape (n, columns).
            actions: Numbers from 0 to `count` - 1, shape (n,).

        Returns:
            The points after the actions, and which actions are legal moves, shape (n,). Where one
            is not, or is STOP, the point stays.
        """
        moved, lines = points.copy(), np.arange(len(points))
        column = self._column[actions]
        there = self._successors[points[lines, column], self._entry[actions]]
        legal: Bools = (column > 0) & (there != NOWHERE)
        moved[lines[legal], column[legal]] = there[legal]
        self._keep_locations(points, moved, legal)
        kinds = np.searchsorted(self._kinds, actions, side="right")
        self._move_sketches(np.flatnonzero(kinds == 1), actions, moved, legal)
        self._move_locations(np.flatnonzero(kinds == 4), actions, moved, legal)
        return moved, legal

    def mask(self, points: States) -> Bools:
        """Which actions are legal at each point, shape (n, count); STOP always is."""
        states, count = self._states, len(points)
        mask = np.zeros((count, self.count), np.bool_)
        mask[:, STOP] = True
        mask[:, 1 : self._first_tile] = self._sketch_mask[points[:, 0]]
        on_tiles = self._possible.take(points[:, states.tiles], axis=0).reshape(count, -1)
        mask[:, self._first_tile : self._first_tile + on_tiles.shape[1]] = on_tiles
        on_choices = self._possible[points[:, states.choices], :2]
        mask[:, self._first_role : self._first_location] = on_choices.reshape(count, -1)
        at = np.flatnonzero(states.has_locations[points[:, 0]])
        if len(at):
            self._mask_tiles(points, at, mask)
            for number in range(states.columns - states.locations.start):
                for action, lines, _ in self._location_steps(number, at, points):
                    mask[lines, action] = True
        return mask

    def _number_actions(self) -> None:
        """Of each action on a tile or an annotation, its column and its entry of the table."""
        self._column = np.zeros(self.count, np.intp)
        self._entry = np.zeros(self.count, np.intp)
        on_tiles = np.arange(self._first_role - self._first_tile)
        tile, entry = np.divmod(on_tiles, self._on_a_tile)
        tiles = self._states.tiles
        held = tiles.start + tile < tiles.stop
        self._column[self._first_tile : self._first_role] = np.where(held, tiles.start + tile, 0)
        self._entry[self._first_tile : self._first_role] = entry
        role, up = np.divmod(np.arange(2 * len(ROLES)), 2)
        self._column[self._first_role : self._first_location] = self._states.choices.start + role
        self._entry[self._first_role : self._first_location] = up

    # -- what touches compute locations -----------------------------------------------------------

    def _keep_locations(self, points: States, moved: States, legal: Bools) -> None:
        """Undo moves of tiles after which a compute location would be illegal."""
        states = self._states
        at = np.flatnonzero(legal & states.has_locations[points[:, 0]])
        if len(at):
            refused = at[~states.placing.admits(moved[at])]
            moved[refused], legal[refused] = points[refused], False

    def _mask_tiles(self, points: States, at: Indices, mask: Bools) -> None:
        """Take out the actions on tiles after which a compute location would be illegal."""
        tiles, placing = self._states.tiles, self._states.placing
        ending, starting = placing.hazards(points[at])
        bound = np.flatnonzero(ending | starting)
        at, ending, starting = at[bound], ending[bound], starting[bound]
        held = points[at, tiles]
        risky = self._ended.take(held, axis=0) & ending[:, None, None]
        risky |= self._started.take(held, axis=0) & starting[:, None, None]
        line, tile, entry = np.nonzero((risky != 0) & self._possible.take(held, axis=0))
        if not len(line):
            return
        moved = points[at[line]]
        moved[np.arange(len(line)), tiles.start + tile] = self._successors[held[line, tile], entry]
        refused = ~placing.admits(moved)
        actions = self._first_tile + tile * self._on_a_tile + entry
        mask[at[line[refused]], actions[refused]] = False

    def _move_sketches(self, at: Indices, actions: Indices, moved: States, legal: Bools) -> None:
        wanted = actions[at] - 1
        old = moved[at, 0]
        possible = self._sketch_mask[old, wanted]
        at, wanted, old = at[possible], wanted[possible], old[possible]
        if len(at):
            first = self._states.first_sketch[self._states.space_of[old]]
            moved[at] = self._states.transfer(moved[at], first + wanted)
            legal[at] = True

    def _move_locations(self, at: Indices, actions: Indices, moved: States, legal: Bools) -> None:
        numbers = (actions[at] - self._first_location) // 2
        for number in np.unique(numbers).tolist():
            if self._states.locations.start + number < self._states.columns:
                of_number = at[numbers == number]
                for action, lines, there in self._location_steps(number, of_number, moved):
                    taken = actions[lines] == action
                    moved[lines[taken]], legal[lines[taken]] = there[taken], True

    def _location_steps(
        self, number: int, at: Indices, points: States
    ) -> list[tuple[int, Indices, States]]:
        """The legal steps down and up of a compute location: action, positions, points there."""
        states = self._states
        column = states.locations.start + number
        at = at[points[at, column] > 0]
        if not len(at):
            return []
        found = states.placing.candidates(points[at], number)
        value = states.values[points[at, column], 0]
        steps = []
        for up in (False, True):
            to, exists = next_value(found, value, up=up)
            lines = at[exists]
            there = points[lines]
            there[:, column] = states.first[there[:, 0], column] + to[exists] - INLINE
            # The locations of later blocks hang on those of earlier ones.
            kept = states.placing.admits(there)
            steps.append((self._first_location + 2 * number + up, lines[kept], there[kept]))
        return steps


@cache
def tile_successors(
    extent: int, width: int, innermost_limit: int, layout: Layout
) -> npt.NDArray[np.int32]:
    """Where actions on a tile lead from each of its values.

    Returns:
        int32, shape (values, actions on a tile): the position of the value there among
        `tilings`, `NOWHERE` where the action is illegal.
    """
    values = tilings(extent, width, innermost_limit).astype(np.int64)
    known = np.array(divisors(extent), np.int64)
    primes = [[prime for prime, _ in factorise(number)] or [1] for number in known.tolist()]
    smallest, largest = (np.array([ps[end] for ps in primes]) for end in (0, -1))
    # Ascending like the values themselves: the factors' positions as digits.
    digits = len(known) ** np.arange(width - 1, -1, -1, dtype=np.int64)
    codes = np.searchsorted(known, values) @ digits
    pairs = itertools.permutations(range(layout.levels), 2)
    table = np.full((len(values), layout.levels * (layout.levels - 1) * 2), NOWHERE, np.int32)
    for entry, ((source, to), is_largest) in enumerate(itertools.product(pairs, (False, True))):
        if max(source, to) >= width:
            continue
        at = np.searchsorted(known, values[:, source])
        prime = (largest if is_largest else smallest)[at]
        possible = values[:, source] > 1
        if is_largest:
            # Where both ends are the same prime, one action is enough.
            possible &= largest[at] != smallest[at]
        moved = values[possible]
        moved[:, source] //= prime[possible]
        moved[:, to] *= prime[possible]
        code = np.searchsorted(known, moved) @ digits
        there = np.minimum(np.searchsorted(codes, code), len(codes) - 1)
        # A value whose innermost level is too large is not among them.
        table[possible, entry] = np.where(codes[there] == code, there, NOWHERE)
    return table
