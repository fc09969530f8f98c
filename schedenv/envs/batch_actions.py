"""The actions of `Edit-v0` for many points at once; `EditActions` says what they mean."""

from __future__ import annotations

import itertools

import numpy as np

from schedenv.envs.actions import STOP
from schedenv.envs.layout import ROLES, Layout
from schedenv.space.batch import ABSENT, BatchSpace, Bools, Indices, Rows


class BatchActions:
    """Applies action numbers to rows, and tells which are legal, for one space and one layout.

    Args:
        batch: The space.
        layout: Sizes that the space fits into.

    Attributes:
        batch: The space.
        count: How many actions there are, STOP included.
    """

    def __init__(self, batch: BatchSpace, layout: Layout) -> None:
        self.batch = batch
        pairs = itertools.product(
            range(layout.tiles), itertools.permutations(range(layout.levels), 2), (False, True)
        )
        tiles = [(tile, source, to, largest) for tile, (source, to), largest in pairs]
        self._tile, self._source, self._to, self._largest = np.array(tiles, np.intp).T
        self._first_tile = 1 + layout.sketches
        self._first_role = self._first_tile + len(tiles)
        self._first_location = self._first_role + 2 * len(ROLES)
        self.count = self._first_location + 2 * layout.locations
        # By sketch and tile action: whether both levels exist, their columns, and the most that
        # the receiving one may hold.
        tables = batch.tables
        fitting = self._tile < tables.tile_start.shape[1]
        tile = np.where(fitting, self._tile, 0)
        width = tables.tile_width[:, tile]
        self._exists = fitting & (np.maximum(self._source, self._to) < width)
        self._from_column = np.where(self._exists, tables.tile_start[:, tile] + self._source, 0)
        self._to_column = np.where(self._exists, tables.tile_start[:, tile] + self._to, 0)
        innermost = self._to == width - 1
        self._limit = np.where(innermost, tables.tile_limit[:, tile], np.iinfo(np.int32).max)

    def apply(self, rows: Rows, actions: Indices) -> tuple[Rows, Bools]:
        """Apply one action to each row.

        Args:
            rows: Legal points, int32, shape (n, 1 + width).
            actions: Numbers from 0 to `count` - 1, shape (n,).

        Returns:
            The points after the actions, and which actions are legal moves, shape (n,). Where one
            is not, or is STOP, the point stays.
        """
        moved, legal = rows.copy(), np.zeros(len(rows), np.bool_)
        kinds = np.searchsorted(
            [1, self._first_tile, self._first_role, self._first_location], actions, side="right"
        )
        for kind, move in enumerate(
            (self._move_sketch, self._move_tile, self._move_choice, self._move_location), start=1
        ):
            at = np.flatnonzero(kinds == kind)
            if len(at):
                there, possible = move(rows[at], actions[at])
                moved[at[possible]], legal[at[possible]] = there[possible], True
        return moved, legal

    def mask(self, rows: Rows) -> Bools:
        """Which actions are legal at each row, shape (n, count); STOP always is."""
        mask = np.zeros((len(rows), self.count), np.bool_)
        lines, actions, _ = self.legal_moves(rows)
        mask[lines, actions] = True
        mask[:, STOP] = True
        return mask

    def legal_moves(self, rows: Rows) -> tuple[Indices, Indices, Rows]:
        """Every legal action of every row: the rows' positions, the actions, where they lead."""
        possible = np.ones((len(rows), self.count), np.bool_)
        possible[:, STOP] = False
        possible[:, self._first_tile : self._first_role] = self._tile_candidates(rows)
        lines, actions = np.nonzero(possible)
        moved, legal = self.apply(rows[lines], actions)
        return lines[legal], actions[legal], moved[legal]

    def _tile_candidates(self, rows: Rows) -> Bools:
        """Which tile actions have a prime to move and room for it; (n, tile actions)."""
        sketch = rows[:, 0]
        factors = np.take_along_axis(rows, self._from_column[sketch], axis=1)
        table = self.batch.factors
        at = table.find(factors)
        smallest, largest = table.smallest[at], table.largest[at]
        prime = np.where(self._largest, largest, smallest)
        grown = np.take_along_axis(rows, self._to_column[sketch], axis=1) * prime
        possible: Bools = self._exists[sketch] & (factors > 1) & (grown <= self._limit[sketch])
        # Where both ends are the same prime, one action is enough.
        possible &= (self._largest == 0) | (largest != smallest)
        return possible

    def _move_sketch(self, rows: Rows, actions: Indices) -> tuple[Rows, Bools]:
        moved, legal = rows.copy(), np.zeros(len(rows), np.bool_)
        wanted = actions - 1
        for sketch in np.unique(wanted[wanted < len(self.batch.tables.widths)]):
            at = np.flatnonzero((wanted == sketch) & (rows[:, 0] != sketch))
            moved[at] = self.batch.transfer(rows[at], int(sketch))
            legal[at] = self.batch.admits(moved[at])
        return moved, legal

    def _move_tile(self, rows: Rows, actions: Indices) -> tuple[Rows, Bools]:
        number, sketch, lines = actions - self._first_tile, rows[:, 0], np.arange(len(rows))
        from_column, to_column = self._from_column[sketch, number], self._to_column[sketch, number]
        table = self.batch.factors
        at = table.find(rows[lines, from_column])
        smallest, largest = table.smallest[at], table.largest[at]
        prime = np.where(self._largest[number], largest, smallest)
        moved = rows.copy()
        legal = self._exists[sketch, number] & (rows[lines, from_column] > 1)
        legal &= (self._largest[number] == 0) | (largest != smallest)
        moved[lines, from_column] //= prime
        moved[lines, to_column] *= prime
        legal &= moved[lines, to_column] <= self._limit[sketch, number]
        legal[legal] = self.batch.admits(moved[legal])
        return moved, legal

    def _move_choice(self, rows: Rows, actions: Indices) -> tuple[Rows, Bools]:
        role, up = np.divmod(actions - self._first_role, 2)
        sketch, lines = rows[:, 0], np.arange(len(rows))
        column = self.batch.tables.choice_start[sketch, role]
        value = rows[lines, np.maximum(column, 0)] + np.where(up, 1, -1)
        legal = (column != ABSENT) & (value >= 0)
        legal &= value < self.batch.tables.choice_count[sketch, role]
        moved = rows.copy()
        moved[lines[legal], column[legal]] = value[legal]
        legal[legal] = self.batch.admits(moved[legal])
        return moved, legal

    def _move_location(self, rows: Rows, actions: Indices) -> tuple[Rows, Bools]:
        location, up = np.divmod(actions - self._first_location, 2)
        moved, legal = rows.copy(), np.zeros(len(rows), np.bool_)
        starts = self.batch.tables.location_start
        for number, is_up in itertools.product(range(starts.shape[1]), (False, True)):
            at = np.flatnonzero((location == number) & (up == is_up))
            if len(at):
                value, exists = self.batch.next_location(rows[at], number, up=is_up)
                at, value = at[exists], value[exists]
                moved[at, starts[rows[at, 0], number]] = value
                legal[at] = self.batch.admits(moved[at])
        return moved, legal
