"""Points as tokens, computed from their rows of knob values alone, many at once and without TVM.

The idea is TLP's (Zhai et al., ASPLOS 2023): what a schedule does can be read from its primitives'
parameters, so features need no lowering. A token here is a knob, not a primitive: the other
primitives are the same for all points of a sketch. Tokens are pooled, so a task may have any
number of them; a tile has a fixed set of places for its levels, which say where in the loop nest
a factor ends up, whatever the task.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schedenv.errors import InputError
from schedenv.space import ChoiceKnob, LocationKnob, SearchSpace, Sketch, TileKnob
from schedenv.tasks import Task

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]

FEATURE_VERSION = 1
"""Raised when a token or the context changes its meaning."""

_ROLES = ("unroll", "parallel", "vectorize")
_SPATIAL_PLACES = (0, 1, 3, 5)
_REDUCTION_PLACES = (2, 4)
_NEST = 6
"""Places of the nest S0 S1 R0 S2 R1 S3 of MetaSchedule's CPU tiling, outermost first."""

_MOST_SKETCHES = 12

_EXTENT, _SPATIAL, _REDUCTION, _LOCATION, _FROM_LAST, _LAST = range(_NEST, _NEST + 6)
_ALIGNED, _INLINED, _ROOT, _DEPTH = range(_NEST + 6, _NEST + 10)
TOKEN_SIZE = _NEST + 10
"""Features of a token: log2 of the factor at each place; log2 of the extent; whether the knob is a
spatial tile, a reduction tile, a location; its distance from the last tile of its kind, and
whether it is the last, the one that is vectorised; log2 of the largest power of two that divides
the innermost factor; whether the block is inlined, at the root, and else under which loop."""

_TASK = 3
CONTEXT_SIZE = _NEST + 2 + 3 * len(_ROLES) + _MOST_SKETCHES + _TASK
"""Features of the whole point: log2 of the product of all factors at each place; of all spatial
and of all reduction extents; for each annotation whether the sketch has it, whether it is off, and
log2 of its value; the sketch, one-hot; log2 of FLOPs, bytes and FLOPs a byte."""

_LOG = np.float32(1 / 8)
"""Scale of logarithms: a factor of 256 becomes 1."""


class Tokens(NamedTuple):
    """Points as a network reads them, all float32.

    Attributes:
        tokens: Shape (n, slots, `TOKEN_SIZE`); unused slots are zero.
        mask: Shape (n, slots): 1 where there is a token.
        context: Shape (n, `CONTEXT_SIZE`).
    """

    tokens: Floats
    mask: Floats
    context: Floats


class Tokenizer:
    """Turns rows of one task into tokens.

    Args:
        task: The task.
        space: What `SearchSpace.encode` made the rows with; a space and its parts give the same
            tokens.

    Raises:
        InputError: A sketch has more tile levels than there are places, or there are too many
            sketches; the message names the limit.
    """

    def __init__(self, task: Task, space: SearchSpace) -> None:
        if len(space.sketches) > _MOST_SKETCHES:
            raise InputError(
                f"{task.name} has {len(space.sketches)} sketches, the tokens of a cost model hold "
                f"{_MOST_SKETCHES}; use the cost model of trees, which has no such limit"
            )
        slots = max(1, *(_token_count(sketch) for sketch in space.sketches))
        numbers = _task_numbers(task)
        self._width = 1 + space.width
        self._plans = [_Plan(task.name, sketch, slots, numbers) for sketch in space.sketches]

    def tokens(self, rows: Rows) -> Tokens:
        """The tokens of rows of (sketch, values...), shape (n, 1 + width).

        Raises:
            InputError: The rows are of another shape or name a sketch that does not exist.
        """
        if rows.ndim != 2 or rows.shape[1] != self._width:
            raise InputError(
                f"expected rows of shape (n, {self._width}) as SearchSpace.encode gives them, "
                f"got {rows.shape}"
            )
        sketches = rows[:, 0]
        if len(rows) and not 0 <= sketches.min() <= sketches.max() < len(self._plans):
            raise InputError(
                f"expected sketches from 0 to {len(self._plans) - 1} in the first column, got "
                f"{sketches.min()} to {sketches.max()}"
            )
        slots = self._plans[0].slots
        out = Tokens(
            np.empty((len(rows), slots, TOKEN_SIZE), np.float32),
            np.empty((len(rows), slots), np.float32),
            np.empty((len(rows), CONTEXT_SIZE), np.float32),
        )
        for index, plan in enumerate(self._plans):
            chosen = np.flatnonzero(sketches == index)
            if len(chosen) == len(rows):
                return plan.tokens(rows)
            if len(chosen):
                for whole, part in zip(out, plan.tokens(rows[chosen]), strict=True):
                    whole[chosen] = part
        return out


class _Plan:
    """Where the values of one sketch go.

    Attributes:
        slots: Tokens that a point has, unused ones included.
    """

    def __init__(self, name: str, sketch: Sketch, slots: int, task: Floats) -> None:
        self.slots = slots
        self._tokens = np.zeros((slots, TOKEN_SIZE), np.float32)
        self._context = np.zeros(CONTEXT_SIZE, np.float32)
        self._context[-_TASK:] = task
        self._context[-_TASK - _MOST_SKETCHES + sketch.index] = 1.0
        self._mask = np.zeros(slots, np.float32)
        self._mask[: _token_count(sketch)] = 1.0
        # Columns of a row, and the entry of a point's flattened tokens that each one fills.
        self._factors: list[tuple[int, int]] = []
        self._innermost: list[tuple[int, int]] = []
        self._locations: list[tuple[int, int]] = []
        self._choices: list[tuple[int, int, Floats]] = []
        # From log2 of the factors to the products over all tiles at each place.
        totals = []
        tiles = list(sketch.tiles())
        kinds = [tile.is_reduction for tile in tiles]
        token = 0
        for knob in sketch.knobs:
            if isinstance(knob, ChoiceKnob):
                self._add_choice(knob)
                continue
            first = token * TOKEN_SIZE
            if isinstance(knob, LocationKnob):
                self._tokens[token, _LOCATION] = 1.0
                self._locations.append((1 + knob.start, first))
            else:
                position = tiles.index(knob)
                places = _places(name, knob)
                self._describe(token, knob, kinds[position + 1 :].count(knob.is_reduction))
                for level, place in enumerate(places):
                    self._factors.append((1 + knob.start + level, first + place))
                    totals.append(place)
                self._innermost.append((knob.start + knob.width, first + _ALIGNED))
            token += 1
        self._totals = np.zeros((len(totals), _NEST), np.float32)
        self._totals[np.arange(len(totals)), totals] = 1.0

    def tokens(self, rows: Rows) -> Tokens:
        count = len(rows)
        flat = np.tile(self._tokens.reshape(1, -1), (count, 1))
        context = np.tile(self._context, (count, 1))
        if self._factors:
            columns, entries = map(list, zip(*self._factors, strict=True))
            logs = _log2(rows[:, columns])
            flat[:, entries] = logs
            context[:, :_NEST] = logs @ self._totals
            columns, entries = map(list, zip(*self._innermost, strict=True))
            factors = rows[:, columns]
            flat[:, entries] = _log2(factors & -factors)
        for column, first in self._locations:
            values = rows[:, column]
            flat[:, first + _INLINED] = values == -2
            flat[:, first + _ROOT] = values == -1
            flat[:, first + _DEPTH] = np.maximum(values, 0) * _LOG
        for column, entry, menu in self._choices:
            context[:, entry : entry + 2] = menu[rows[:, column]]
        mask = np.tile(self._mask, (count, 1))
        return Tokens(flat.reshape(count, self.slots, TOKEN_SIZE), mask, context)

    def _describe(self, token: int, tile: TileKnob, after: int) -> None:
        """What of a tile is the same for all points."""
        extent = _log2(np.array(tile.extent))
        self._tokens[token, _EXTENT] = extent
        self._tokens[token, _REDUCTION if tile.is_reduction else _SPATIAL] = 1.0
        self._tokens[token, _FROM_LAST] = after / 8
        self._tokens[token, _LAST] = after == 0
        self._context[_NEST + tile.is_reduction] += extent

    def _add_choice(self, knob: ChoiceKnob) -> None:
        first = _NEST + 2 + 3 * _ROLES.index(knob.role)
        self._context[first] = 1.0
        amounts = np.array(knob.choices)
        menu = np.stack([amounts == 0, _log2(np.maximum(amounts, 1))], axis=1)
        self._choices.append((1 + knob.start, first + 1, menu.astype(np.float32)))


def _token_count(sketch: Sketch) -> int:
    return sum(not isinstance(knob, ChoiceKnob) for knob in sketch.knobs)


def _places(name: str, tile: TileKnob) -> tuple[int, ...]:
    """The places of a tile's levels; the innermost level is always at the innermost place."""
    places = _REDUCTION_PLACES if tile.is_reduction else _SPATIAL_PLACES
    if tile.width > len(places):
        raise InputError(
            f"{tile.name} of {name} has {tile.width} tile levels, the tokens of a cost model hold "
            f"{len(places)}; use the cost model of trees, which has no such limit"
        )
    return places[len(places) - tile.width :]


def _task_numbers(task: Task) -> Floats:
    # The family is left out: a held-out family would turn on weights that were never trained.
    return np.array(
        [
            np.log2(1 + task.flops) / 40,
            np.log2(1 + task.bytes) / 40,
            np.log2(1 + task.intensity) / 20,
        ],
        np.float32,
    )


def _log2(values: npt.NDArray[np.integer]) -> Floats:
    logs: Floats = np.log2(values.astype(np.float32)) * _LOG
    return logs
