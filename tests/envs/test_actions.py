"""The mask and the moves of `Edit-v0` against the space, without measuring."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from schedenv.envs.actions import STOP, EditActions
from schedenv.envs.layout import Layout
from schedenv.space import FactorMove, LocationKnob, Move, Point, SetMove, SketchMove, Space
from schedenv.space.knobs import primes_of

SpaceOf = Callable[[str], Space]

FAMILIES = [
    "gmm:1x12x20x6",
    "c2d:1x6x6x4x6x3x1x1",
    "sfm:8x12",
    "tbg:1x8x2x6",
    "cap:1x4x4x2x2x3x1x1",
]
POINTS = 3

actions = EditActions(Layout())


def points(space: Space, count: int = POINTS) -> Iterator[Point]:
    rng = np.random.default_rng(7)
    yield from (space.default(sketch.index) for sketch in space.sketches[:2])
    yield from (space.sample(rng) for _ in range(count))


def expected_moves(space: Space, point: Point) -> set[Move]:
    """The space's own legal moves that are one action, found without `EditActions`."""
    sketch = space.sketches[point.sketch]
    expected: set[Move] = set()
    for move in space.legal_moves(point):
        match move:
            case FactorMove():
                primes = primes_of(point.values[move.source])
                one_action = move.factor in (min(primes), max(primes))
            case SetMove():
                knob = sketch.knobs[move.knob]
                options = (
                    list(space.location_candidates(point, knob))
                    if isinstance(knob, LocationKnob)
                    else list(range(len(knob.choices)))
                )
                one_action = abs(options.index(move.new) - options.index(move.old)) == 1
            case SketchMove():
                one_action = True
        if one_action:
            expected.add(move)
    return expected


@pytest.mark.parametrize("spec", FAMILIES)
def test_the_actions_are_the_small_legal_moves_of_the_space_and_no_others(
    spec: str, space_of: SpaceOf
) -> None:
    space = space_of(spec)
    Layout().check(space, spec)
    for point in points(space):
        moves = [actions.move(space, point, action) for action in range(int(actions.space.n))]
        legal = [move for move in moves if move is not None]
        assert set(legal) == expected_moves(space, point)
        assert len(set(legal)) == len(legal), "two actions mean the same move"


@pytest.mark.parametrize("spec", FAMILIES)
def test_the_mask_is_true_for_stop_and_for_every_action_that_means_a_legal_move(
    spec: str, space_of: SpaceOf
) -> None:
    space = space_of(spec)
    for point in points(space):
        mask = actions.mask(space, point)
        assert mask.shape == (actions.space.n,)
        assert mask.dtype == np.bool_
        assert mask[STOP]
        assert actions.move(space, point, STOP) is None
        for action in range(1, len(mask)):
            move = actions.move(space, point, action)
            assert mask[action] == (move is not None)
            assert move is None or space.is_legal(move.apply(point))


@pytest.mark.parametrize("spec", FAMILIES)
def test_a_step_of_a_tile_a_choice_or_a_location_is_undone_by_one_action(
    spec: str, space_of: SpaceOf
) -> None:
    space = space_of(spec)
    for point in points(space, 2):
        for move in expected_moves(space, point):
            if not isinstance(move, SketchMove):
                moved = move.apply(point)
                assert point in {back.apply(moved) for back in _moves(space, moved)}


def test_a_prime_between_two_others_is_moved_back_in_three_actions(space_of: SpaceOf) -> None:
    space = space_of("gmm:1x30x4x4")
    rows = next(t for t in space.sketches[0].tiles() if np.prod(_values(space, t)) == 30)
    values = list(space.default().values)
    values[rows.start : rows.start + rows.width] = (3, 10, 1, 1)
    point = Point(0, tuple(values))
    assert space.is_legal(point)
    moved = FactorMove(space.sketches[0].knobs.index(rows), rows.start, rows.start + 1, 3).apply(
        point
    )
    reached = {moved}
    for _ in range(3):
        reached |= {
            move.apply(at)
            for at in reached
            for move in _moves(space, at)
            if isinstance(move, FactorMove) and rows.start <= move.source < rows.start + rows.width
        }
    assert point in reached


def test_the_mask_differs_between_points(space_of: SpaceOf) -> None:
    space = space_of(FAMILIES[0])
    masks = {actions.mask(space, point).tobytes() for point in points(space)}
    assert len(masks) > 1


def test_a_larger_layout_has_more_actions() -> None:
    sizes = [int(EditActions(Layout(tiles=tiles)).space.n) for tiles in (1, 2, 12)]
    # 12 ordered pairs of 4 levels, each with the smallest and the largest prime.
    assert sizes == [sizes[0], sizes[0] + 24, sizes[0] + 11 * 24]
    assert sizes[-1] == 319


def _moves(space: Space, point: Point) -> list[Move]:
    found = (actions.move(space, point, action) for action in range(int(actions.space.n)))
    return [move for move in found if move is not None]


def _values(space: Space, knob: object) -> tuple[int, ...]:
    return space.default().values[knob.start : knob.start + knob.width]  # type: ignore[attr-defined]
