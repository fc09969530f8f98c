"""Actions and observations on knob states, against those on rows, which are held to the space's."""

from collections.abc import Callable

import numpy as np
import pytest

from schedenv.envs.batch_actions import BatchActions
from schedenv.envs.batch_observations import BatchObservation
from schedenv.envs.layout import Layout
from schedenv.envs.state_actions import StateActions
from schedenv.envs.state_observations import StateObservation
from schedenv.space import Space
from schedenv.space.knob_states import KnobStates
from schedenv.tasks import SUITES, members

from .test_batch_actions import FAMILIES

SpaceOf = Callable[[str], Space]

layout = Layout()


def check(spaces: list[Space], count: int) -> None:
    """All spaces at once against each one's batch, at random points and their legal moves."""
    states = KnobStates(spaces)
    actions, observe = StateActions(states, layout), StateObservation(states, layout)
    rngs = [np.random.default_rng(seed) for seed in range(count * len(spaces))]
    of_space = np.repeat(np.arange(len(spaces)), count)
    points = states.sample(of_space, rngs)
    before = points.copy()
    masks, seen = actions.mask(points), observe.build(points)
    repeated = np.repeat(points, actions.count, axis=0)
    moved, legal = actions.apply(repeated, np.tile(np.arange(actions.count), len(points)))
    np.testing.assert_array_equal(points, before)
    legal = legal.reshape(len(points), -1)
    for number in range(len(spaces)):
        at = np.flatnonzero(of_space == number)
        batch = states.batches[number]
        expected = BatchActions(batch, layout)
        rows = states.rows(number, points[at])
        np.testing.assert_array_equal(masks[at], expected.mask(rows))
        for got, wanted in zip(seen, BatchObservation(batch, layout).build(rows), strict=True):
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got[at], wanted)
        there, possible = expected.apply(
            np.repeat(rows, actions.count, axis=0), np.tile(np.arange(actions.count), len(at))
        )
        np.testing.assert_array_equal(legal[at].ravel(), possible)
        lines = moved.reshape(len(points), actions.count, -1)[at].reshape(len(there), -1)
        np.testing.assert_array_equal(states.rows(number, lines), there)


def test_one_space_agrees_with_its_batch(space_of: SpaceOf) -> None:
    check([space_of(FAMILIES["gmm"])], 20)


def test_all_families_at_once_agree_with_the_batch_of_each(space_of: SpaceOf) -> None:
    check([space_of(spec) for spec in FAMILIES.values()], 2)


@pytest.mark.slow
@pytest.mark.parametrize("suite", sorted(SUITES))
def test_every_suite_agrees(suite: str, space_of: SpaceOf) -> None:
    check([space_of(spec) for spec in members(suite)], 8)
