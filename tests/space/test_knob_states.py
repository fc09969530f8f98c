"""Points as knob states, against rows and points: a few spaces at once, told apart by sketches."""

from collections.abc import Callable

import numpy as np
import pytest

from schedenv.space import Space
from schedenv.space.knob_states import KnobStates, States, knob_values
from schedenv.space.point_texts import PointTexts

SPECS = ["gmm:1x12x20x6", "c2d:1x6x6x4x6x3x1x1", "sfm:8x12"]
POINTS = 12


@pytest.fixture(scope="module")
def spaces(space_of: Callable[[str], Space]) -> list[Space]:
    return [space_of(spec) for spec in SPECS]


@pytest.fixture(scope="module")
def states(spaces: list[Space]) -> KnobStates:
    return KnobStates(spaces)


@pytest.fixture(scope="module")
def drawn(states: KnobStates) -> States:
    """Points of all spaces, mixed."""
    rngs = [np.random.default_rng(seed) for seed in range(POINTS * len(SPECS))]
    return states.sample(np.arange(len(rngs)) % len(SPECS), rngs)


def test_a_point_is_drawn_as_the_batch_of_its_space_draws_it(
    states: KnobStates, spaces: list[Space], drawn: States
) -> None:
    for number, space in enumerate(spaces):
        seeds = range(number, POINTS * len(SPECS), len(SPECS))
        expected = states.batches[number].sample([np.random.default_rng(seed) for seed in seeds])
        rows = states.rows(number, drawn[number :: len(SPECS)])
        np.testing.assert_array_equal(rows, expected)
        assert all(space.is_legal(point) for point in space.decode(rows))


def test_rows_and_states_are_two_forms_of_the_same_points(
    states: KnobStates, drawn: States
) -> None:
    for number in range(len(SPECS)):
        points = drawn[number :: len(SPECS)]
        np.testing.assert_array_equal(states.points(number, states.rows(number, points)), points)


def test_every_sketch_takes_over_what_the_space_says_it_does(
    states: KnobStates, spaces: list[Space], drawn: States
) -> None:
    for number, space in enumerate(spaces):
        points = drawn[number :: len(SPECS)]
        before = space.decode(states.rows(number, points))
        for sketch in range(len(space.sketches)):
            there = states.transfer(points, np.full(POINTS, states.first_sketch[number] + sketch))
            got = space.decode(states.rows(number, there))
            for point, moved in zip(before, got, strict=True):
                assert moved == (point if point.sketch == sketch else space.transfer(point, sketch))


def test_texts_are_those_of_the_points(
    states: KnobStates, spaces: list[Space], drawn: States
) -> None:
    texts = PointTexts(states).of(drawn)
    for number, space in enumerate(spaces):
        points = space.decode(states.rows(number, drawn[number :: len(SPECS)]))
        assert texts[number :: len(SPECS)].tolist() == [str(point) for point in points]
    assert PointTexts(states).of(drawn[:0]).tolist() == []


def test_the_values_of_a_knob_are_all_that_it_may_hold(spaces: list[Space]) -> None:
    for space in spaces:
        for sketch in space.sketches:
            for knob in (*sketch.tiles(), *sketch.choices()):
                values = [tuple(value) for value in knob_values(knob).tolist()]
                assert all(knob.is_legal(value) for value in values)
                assert values == sorted(set(values))
                assert len(values) == knob.count()
                assert knob.default() in values
