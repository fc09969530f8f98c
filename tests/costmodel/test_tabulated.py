"""Scores from tables of knob values, against the network that they were tabulated from."""

from collections.abc import Callable

import numpy as np
import pytest

from schedenv.costmodel import TokenModel, TrainingData
from schedenv.costmodel.tabulated import SumsOverKnobs, TabulatedScores
from schedenv.errors import InputError
from schedenv.space import Space
from schedenv.space.knob_states import KnobStates, States
from schedenv.tasks import resolve

SPECS = ("gmm:1x64x48x32", "c1d:1x32x16x16x3x1x1")
POINTS = 150

Tabulated = tuple[TokenModel, KnobStates, TabulatedScores]


@pytest.fixture(scope="module")
def tabulated(data: TrainingData, space_of: Callable[[str], Space]) -> Tabulated:
    model = TokenModel(seed=2, epochs=5)
    model.fit(data)
    states = KnobStates([space_of(spec) for spec in SPECS])
    return model, states, TabulatedScores(model, [resolve(spec) for spec in SPECS], states)


def points_of(states: KnobStates, count: int = POINTS) -> States:
    rngs = [np.random.default_rng(seed) for seed in range(count)]
    return states.sample(np.arange(count) % len(SPECS), rngs)


def test_scores_are_those_of_the_network(
    tabulated: Tabulated, space_of: Callable[[str], Space]
) -> None:
    model, states, scorer = tabulated
    points = points_of(states)
    scores = scorer.scores(points)
    assert (scores.shape, scores.dtype) == ((POINTS,), np.float32)
    for number, spec in enumerate(SPECS):
        own = slice(number, None, len(SPECS))
        rows = states.rows(number, points[own])
        expected = model.predict_rows(resolve(spec), space_of(spec), rows)
        assert expected.std() > 0.05
        np.testing.assert_allclose(scores[own], expected, rtol=1e-5, atol=1e-5)


def test_a_score_hangs_on_no_other_point_in_not_one_bit(tabulated: Tabulated) -> None:
    _, states, scorer = tabulated
    points = points_of(states)
    whole = scorer.scores(points)
    np.testing.assert_array_equal(scorer.scores(points), whole)
    order = np.random.default_rng(0).permutation(POINTS)
    np.testing.assert_array_equal(scorer.scores(points[order]), whole[order])
    for count in (1, 2, 63, 64, 65, 100):
        np.testing.assert_array_equal(scorer.scores(points[:count]), whole[:count])
    assert scorer.scores(points[:0]).shape == (0,)


def test_a_model_made_from_the_same_weights_gives_the_same_bits(
    data: TrainingData, tabulated: Tabulated
) -> None:
    _, states, scorer = tabulated
    again = TokenModel(seed=2, epochs=5)
    again.fit(data)
    points = points_of(states)
    twin = TabulatedScores(again, [resolve(spec) for spec in SPECS], states)
    np.testing.assert_array_equal(twin.scores(points), scorer.scores(points))


def test_a_model_that_was_not_fitted_has_nothing_to_tabulate(tabulated: Tabulated) -> None:
    _, states, _ = tabulated
    model = TokenModel()
    assert isinstance(model, SumsOverKnobs)
    with pytest.raises(InputError) as refused:
        TabulatedScores(model, [resolve(spec) for spec in SPECS], states)
    assert str(refused.value) == (
        "this tokens model was not fitted; call fit(data) first, or load one"
    )
