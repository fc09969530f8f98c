"""Restrictions and the sub-spaces they give."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedenv.errors import InputError, UnknownNameError
from schedenv.space import (
    FactorMove,
    Point,
    Restriction,
    SetMove,
    Space,
    SubSpace,
    TileKnob,
    fit_restriction,
)

SpaceOf = Callable[[str], Space]

# Three sketches, a padding block with a location, an awkward factor of 7.
CONV = "c1d:1x28x8x16x3x1x1"
MEMBERS = ["gmm:1x32x32x32", CONV, "nrm:1x12x20", "sfm:8x12"]

reuses_fixtures = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def part(space: Space, limit: int = 60) -> SubSpace:
    return SubSpace.of(space, fit_restriction(space, limit))


# -- restrictions -----------------------------------------------------------------------------


def test_a_restriction_keeps_exactly_the_points_that_match_its_patterns(tiny_space: Space) -> None:
    restriction = Restriction(
        {
            0: {"Z.v_b": "*,1,1,1", "Z.v_i": "*,1,1,4", "Z.v_j": "*,1,*,8|16", "Z.v_k": "*,1"}
            | {"parallel": "0", "vectorize": "0", "unroll": "0|64"}
        }
    )
    points = restriction.points(tiny_space)
    sketch = tiny_space.sketches[0]
    i, j, k = (tile for tile in sketch.tiles() if tile.extent > 1)

    def factors(point: Point, tile: TileKnob) -> tuple[int, ...]:
        return point.values[tile.start : tile.start + tile.width]

    assert {factors(p, i) for p in points} == {(8, 1, 1, 4)}
    assert {factors(p, j) for p in points} == {
        *((4 // middle, 1, middle, 8) for middle in (1, 2, 4)),
        *((2 // middle, 1, middle, 16) for middle in (1, 2)),
    }
    assert {factors(p, k) for p in points} == {(32, 1)}
    unrolls = next(knob for knob in sketch.choices() if knob.role == "unroll")
    assert {unrolls.choices[p.values[unrolls.start]] for p in points} == {0, 64}
    assert len(points) == 10
    assert points == sorted(set(points))
    assert all(tiny_space.is_legal(point) for point in points)


def test_a_restriction_is_json_and_back(tiny_space: Space) -> None:
    restriction = fit_restriction(tiny_space, 100)
    assert Restriction.parse(str(restriction)) == restriction


def test_a_location_may_be_restricted_to_the_root(space_of: SpaceOf) -> None:
    space = space_of(CONV)
    free = fit_restriction(space, 60).sketches[0]
    name = next(space.sketches[0].locations()).name
    bound = Restriction({0: {**free, name: "-1"}}).points(space)
    slot = next(space.sketches[0].locations()).start
    assert {point.values[slot] for point in bound} == {-1}
    everywhere = Restriction({0: {**free, name: "*"}}).points(space)
    assert {point.values[slot] for point in everywhere} > {-1}
    assert set(bound) < set(everywhere)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            {9: {}},
            "the restriction names the sketch 9; expected 0 to 2",
        ),
        (
            {0: {"Z.v_i": "*,1"}},
            "Z.v_i: expected a pattern of 4 parts separated by commas, got '*,1', which has 2",
        ),
        (
            {0: {"unroll": "few"}},
            "unroll: expected numbers separated by '|', or '*', in each part of the pattern, "
            "got 'few'",
        ),
        (
            {0: {"Z.v_i": "5,*,*,*"}},
            'the restriction {"sketches":{"0":{"Z.v_i":"5,*,*,*"}}} keeps no point; widen its '
            "patterns",
        ),
        (
            {0: {}},
            "the restriction keeps more than 1000 points; narrow its patterns, or allow more with "
            "--points",
        ),
    ],
)
def test_a_restriction_that_does_not_fit_is_refused(
    patterns: dict[int, dict[str, str]], message: str, tiny_space: Space
) -> None:
    with pytest.raises(InputError) as raised:
        Restriction(patterns).points(tiny_space, 1000)
    assert str(raised.value) == message


def test_an_unknown_knob_is_refused_with_the_closest_name(tiny_space: Space) -> None:
    with pytest.raises(UnknownNameError) as raised:
        Restriction({1: {"unrol": "0"}}).points(tiny_space)
    assert str(raised.value) == "unknown knob of sketch 1 'unrol'; did you mean 'unroll'?"


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("{", "Input data was truncated"),
        ('{"sketches": {"0": 3}}', "Expected `object`, got `int` - at `$.sketches[...]`"),
        ('{"patterns": {}}', "Object contains unknown field `patterns`"),
    ],
)
def test_text_that_is_no_restriction_is_refused(text: str, detail: str) -> None:
    with pytest.raises(InputError) as raised:
        Restriction.parse(text)
    assert str(raised.value) == (
        'expected a restriction such as \'{"sketches": {"0": {"Z.v_j": "*,1,1,8|16", '
        f'"unroll": "0|64"}}}}}}\', got {text!r} ({detail})'
    )


# -- fitting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", MEMBERS)
@pytest.mark.parametrize("limit", [1, 60])
def test_a_fitted_restriction_keeps_at_most_so_many_points_and_moves_connect_them(
    spec: str, limit: int, space_of: SpaceOf
) -> None:
    fitted = fit_restriction(space_of(spec), limit)
    assert fitted == fit_restriction(space_of(spec), limit)
    space = SubSpace.of(space_of(spec), fitted)
    assert limit // 4 <= len(space.points()) <= limit
    assert space.components() == 1


def test_no_point_at_all_cannot_be_fitted(tiny_space: Space) -> None:
    with pytest.raises(InputError) as raised:
        fit_restriction(tiny_space, 0)
    assert str(raised.value) == "expected at least 1 point, got 0"


# -- sub-spaces -------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", MEMBERS)
def test_points_are_legal_in_the_whole_space_too(spec: str, space_of: SpaceOf) -> None:
    whole = space_of(spec)
    inside = part(whole)
    assert inside.size() == len(inside.points()) == len(set(inside.points()))
    for point in inside.points():
        assert whole.is_legal(point)
        assert inside.is_legal(point)
    assert inside.canonical(inside.points()[0]) == whole.canonical(inside.points()[0])
    assert inside.describe(inside.points()[0]) == whole.describe(inside.points()[0])


@pytest.mark.parametrize("spec", MEMBERS)
@given(seed=st.integers(0, 1000))
@reuses_fixtures
def test_a_legal_move_stays_inside_and_has_a_legal_inverse(
    spec: str, seed: int, space_of: SpaceOf
) -> None:
    space = part(space_of(spec))
    point = space.sample(np.random.default_rng(seed))
    moves = space.legal_moves(point)
    assert len(set(moves)) == len(moves)
    for move in moves:
        there = move.apply(point)
        assert space.is_legal(there)
        assert there != point
        assert space.is_legal_move(there, move.inverse())
        assert move.inverse().apply(there) == point
        if isinstance(move, (FactorMove, SetMove)):
            assert move.inverse() in space.legal_moves(there)


def test_samples_are_uniform_over_the_points(tiny_space: Space) -> None:
    space = part(tiny_space, 40)
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(space.points(), 0)
    for _ in range(100 * len(counts)):
        counts[space.sample(rng)] += 1
    assert min(counts.values()) > 50
    assert max(counts.values()) < 160


def test_a_step_over_a_gap_moves_several_primes_at_once(tiny_space: Space) -> None:
    patterns = fit_restriction(tiny_space, 40).sketches[0]
    gap = Restriction({0: {**patterns, "Z.v_j": "*,1,1,2|16", "Z.v_i": "*,1,1,4"}})
    space = SubSpace.of(tiny_space, gap)
    assert space.components() == 1
    factors = {
        move.factor
        for point in space.points()
        for move in space.legal_moves(point)
        if isinstance(move, FactorMove) and space.sketches[0].knobs[move.knob].name == "Z.v_j"
    }
    assert factors == {8}


def test_points_that_moves_do_not_connect_are_counted(tiny_space: Space) -> None:
    one, *_, other = (p for p in part(tiny_space, 40).points() if p.sketch == 0)
    space = SubSpace(tiny_space.sketches, [one, other], tiny_space.canonical)
    assert space.legal_moves(one) == []
    assert space.components() == 2


def test_the_default_is_the_closest_point_to_the_whole_spaces(tiny_space: Space) -> None:
    space = part(tiny_space, 40)
    assert space.is_legal(space.default())
    assert space.default() == space.default(0)
    with_it = SubSpace(
        tiny_space.sketches, [*space.points(), tiny_space.default()], tiny_space.canonical
    )
    assert with_it.default() == tiny_space.default()


def test_a_sketch_that_is_not_kept_cannot_be_reached(tiny_space: Space) -> None:
    kept = fit_restriction(tiny_space, 60).sketches
    space = SubSpace.of(tiny_space, Restriction({2: kept[2]}))
    point = space.points()[0]
    assert {p.sketch for p in space.neighbours(point)} == {2}
    assert not space.is_legal(space.transfer(point, 0))
    assert space.default(0).sketch == 2


def test_rows_of_numbers_give_the_points_back(tiny_space: Space) -> None:
    space = part(tiny_space, 40)
    assert space.decode(space.encode(space.points())) == list(space.points())


def test_a_point_outside_is_explained(tiny_space: Space) -> None:
    space = part(tiny_space, 40)
    outside = tiny_space.default()
    assert space.explain_illegal(outside) == (
        f"it is not one of the {len(space.points())} points of this sub-space"
    )


def test_a_point_given_twice_is_refused(tiny_space: Space) -> None:
    point = tiny_space.default()
    with pytest.raises(InputError) as raised:
        SubSpace(tiny_space.sketches, [point, point], tiny_space.canonical)
    assert str(raised.value) == (
        "expected at least one point, each of them once; got 2 points, 1 of them different"
    )
