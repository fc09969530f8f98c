"""What measured points say about others."""

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from schedenv_agents.coordinates import ROLES, Coordinates
from schedenv_agents.forecast import Forecast
from schedenv_agents.gaussian_process import GaussianProcess
from schedenv_agents.hierarchical.relevance import Relevance

from schedenv.space import Point, Space


class TestGaussianProcess:
    def test_it_says_what_it_was_told_and_is_sure_of_it(self) -> None:
        rng = np.random.default_rng(0)
        features = rng.uniform(0, 8, (30, 4))
        seconds = np.exp(np.sin(features[:, 0]) + 0.05 * features[:, 1] - 8)
        mean, deviation = GaussianProcess(features, seconds).predict(features)
        np.testing.assert_allclose(mean, np.log(seconds), atol=0.15)
        far, unsure = GaussianProcess(features, seconds).predict(features + 100)
        assert unsure.min() > deviation.max()
        np.testing.assert_allclose(far, np.log(seconds).mean())

    def test_failures_count_as_the_slowest(self) -> None:
        features = np.array([[0.0], [1.0], [10.0]])
        mean, _ = GaussianProcess(features, np.array([1.0, 2.0, np.inf])).predict(features)
        assert mean[2] == mean.max()

    def test_points_chosen_together_do_not_repeat_each_other(self) -> None:
        model = GaussianProcess(np.array([[0.0], [20.0]]), np.array([1.0, 1.1]))
        candidates = np.array([[5.0], [5.01], [5.02], [14.0]])
        assert 3 in model.choose(candidates, 2, 2.0)

    def test_where_nothing_was_measured_it_falls_back_to_what_was_expected(self) -> None:
        features = np.array([[0.0], [1.0], [2.0]])
        expected = np.array([3.0, 1.0, 2.0])
        # All take e times as long as expected.
        model = GaussianProcess(features, np.exp(expected + 1.0), expected=expected)
        mean, deviation = model.predict(np.array([[0.0], [100.0]]))
        np.testing.assert_allclose(mean, 1.0, atol=1e-6)
        assert deviation[1] > 3 * deviation[0]

    def test_with_nothing_measured_at_all_its_choice_is_spread(self) -> None:
        model = GaussianProcess(np.zeros((0, 1)), np.zeros(0), expected=np.zeros(0))
        candidates = np.array([[5.0], [5.01], [14.0]])
        mean, deviation = model.predict(candidates)
        assert (mean == 0.0).all()
        assert (deviation == deviation[0]).all()
        assert 2 in model.choose(candidates, 2, 2.0)


@given(seed=st.integers(0, 1000))
def test_points_have_equal_coordinates_only_if_they_are_equal(seed: int, tiny_space: Space) -> None:
    rng = np.random.default_rng(seed)
    points = [tiny_space.sample(rng) for _ in range(2)]
    one, other = Coordinates(tiny_space).of(points)
    assert (one == other).all() == (points[0] == points[1])


def test_scales_stretch_the_coordinates_of_their_roles_alone(tiny_space: Space) -> None:
    rng = np.random.default_rng(0)
    points = [tiny_space.sample(rng) for _ in range(30)]
    plain, roles = Coordinates(tiny_space).of(points), Coordinates(tiny_space).roles(points)
    for number, role in enumerate(ROLES):
        scales = np.ones(len(ROLES))
        scales[number] = 3.0
        stretched = Coordinates(tiny_space, scales).of(points)
        assert np.allclose(stretched, np.where(roles == number, 3.0, 1.0) * plain), role
    assert {ROLES[number] for number in np.unique(roles)} >= {"sketch", "S0", "last S3", "R1"}


def test_what_a_time_depends_on_is_found_relevant(tiny_space: Space) -> None:
    def seconds(points: Sequence[Point]) -> np.ndarray:
        coordinates = Coordinates(tiny_space)
        matters = coordinates.roles(points) == ROLES.index("S3")
        return np.exp(np.sin((coordinates.of(points) * matters).sum(axis=1)) - 9)

    relevance = Relevance(np.random.default_rng(0))
    relevance.add(tiny_space, seconds)
    scales = dict(zip(ROLES, relevance.scales(), strict=True))
    assert scales["S3"] == max(scales.values())
    assert scales["S3"] > 1 > scales["S0"]


class TestForecast:
    def test_it_orders_points_as_their_times_are(self, tiny_space: Space) -> None:
        rng = np.random.default_rng(0)
        points = list({tiny_space.sample(rng): None for _ in range(60)})
        coordinates = Coordinates(tiny_space)
        seconds = np.exp(coordinates.of(points)[:, -4:].sum(axis=1) / 8 - 9)
        known = dict(zip(points[:40], seconds[:40], strict=True))
        forecast = Forecast(coordinates, known)
        expected, _ = forecast.predict(points[40:])
        assert np.corrcoef(expected, np.log(seconds[40:]))[0, 1] > 0.5

    def test_one_time_and_failures_are_too_little_for_one(self, tiny_space: Space) -> None:
        rng = np.random.default_rng(0)
        points = list({tiny_space.sample(rng): None for _ in range(3)})
        coordinates = Coordinates(tiny_space)
        failed = dict(zip(points, [1e-6, np.inf, np.inf], strict=True))
        assert Forecast.of(coordinates, failed) is None
        assert Forecast.of(coordinates, failed | {points[1]: 2e-6}) is not None

    def test_what_is_expected_is_corrected_by_what_is_measured(self, tiny_space: Space) -> None:
        rng = np.random.default_rng(0)
        points = list({tiny_space.sample(rng): None for _ in range(20)})
        coordinates = Coordinates(tiny_space)
        wrong = dict(zip(points, rng.normal(size=len(points)), strict=True))

        def expect(asked: Sequence[Point]) -> np.ndarray:
            return np.array([wrong[point] for point in asked])

        before = Forecast.of(coordinates, {}, expect)
        assert before is not None
        np.testing.assert_array_equal(before.predict(points)[0], expect(points))
        assert before.choose(points, 1, 0.0) == [min(points, key=wrong.__getitem__)]
        seconds = {point: math.exp(-10 - wrong[point]) for point in points[:10]}
        after = Forecast.of(coordinates, seconds, expect)
        assert after is not None
        assert after.choose(points[:10], 1, 0.0) == [max(points[:10], key=wrong.__getitem__)]

    def test_failures_alone_leave_it_as_it_was_expected(self, tiny_space: Space) -> None:
        point = tiny_space.default()
        forecast = Forecast.of(Coordinates(tiny_space), {point: np.inf}, lambda p: np.ones(len(p)))
        assert forecast is not None
        assert forecast.predict([point])[0] == 1.0
