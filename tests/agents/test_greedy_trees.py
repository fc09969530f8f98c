"""A descent, then a survey of the whole space."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from schedenv_agents.greedy_local import GreedyLocalAgent
from schedenv_agents.greedy_trees import TreesGreedyAgent
from schedenv_agents.knob_trees import KnobTrees
from schedenv_agents.survey import Survey, SurveyConfig

from schedenv.measure import Phases, Result, Status
from schedenv.space import Point, Space

from .landscape import best_distance, distance, goal, judged


def test_it_comes_nearer_to_the_optimum_than_greedy_with_equal_trials(
    one_width_space: Space,
) -> None:
    def mean(agent: Callable[[Space, int], GreedyLocalAgent]) -> float:
        found = [best_distance(agent(one_width_space, s), one_width_space) for s in range(4)]
        return float(np.mean(found))

    assert mean(TreesGreedyAgent) <= mean(GreedyLocalAgent)


def test_the_survey_begins_when_the_best_looking_neighbours_were_no_better(
    tiny_space: Space,
) -> None:
    agent = TreesGreedyAgent(tiny_space, 0)
    asked = 0
    while not agent.state_dict()["surveying"]:
        points = agent.ask(16)
        assert points
        asked += len(points)
        # The first point of all is the best one: nothing that is asked later is better.
        agent.tell([judged(p, 1e-6 * (1 + 0.1 * (asked > 4) + 0.001 * n))
                    for n, p in enumerate(points)])  # fmt: skip
    assert 8 + 24 <= asked <= 8 + 24 + 8
    assert len(agent.ask(16)) == 8


def surveying(agent: TreesGreedyAgent) -> list[Point]:
    """Tell it that all is alike, until it surveys; what it then asks for."""
    while True:
        points = agent.ask(16)
        if agent.state_dict()["surveying"]:
            return points
        agent.tell([judged(point, 1e-6, noise=0.0) for point in points])


def test_a_survey_ends_with_a_better_point_from_which_it_descends(tiny_space: Space) -> None:
    agent = TreesGreedyAgent(tiny_space, 0)
    points = surveying(agent)
    agent.tell([judged(p, 1e-6 - 1e-7 * (p == points[-1]), noise=0.0) for p in points])
    assert not agent.state_dict()["surveying"]
    assert agent.state_dict()["centre"] == str(points[-1])
    assert set(agent.ask(16)) <= set(tiny_space.neighbours(points[-1]))


def after_fruitless_survey(agent: TreesGreedyAgent) -> list[Point]:
    """What it asks for when a survey has found nothing."""
    points, asked = surveying(agent), 0
    while agent.state_dict()["surveying"]:
        asked += len(points)
        agent.tell([judged(point, 2e-6) for point in points])
        points = agent.ask(16)
    assert 32 <= asked <= 32 + 8
    return points


def test_a_fruitless_survey_ends_after_a_while_and_draws_begin_another_part(
    tiny_space: Space,
) -> None:
    agent = TreesGreedyAgent(tiny_space, 0)
    storm = after_fruitless_survey(agent)
    assert len(storm) == 4
    # All worth a descent, none as good as what is known.
    agent.tell([judged(p, 1.5e-6 + 1e-7 * (p != storm[2]), noise=0.0) for p in storm])
    assert set(agent.ask(16)) <= set(tiny_space.neighbours(storm[2]))


def test_draws_that_are_not_worth_a_descent_leave_it_to_the_best_known(tiny_space: Space) -> None:
    agent = TreesGreedyAgent(tiny_space, 0)
    storm = after_fruitless_survey(agent)
    agent.tell([judged(point, 9e-6) for point in storm])
    agent.ask(16)
    assert agent.state_dict()["centre"] not in {str(point) for point in storm}


def test_a_storm_of_which_a_part_is_never_told_is_no_trouble(tiny_space: Space) -> None:
    agent = TreesGreedyAgent(tiny_space, 0)
    for _ in range(4):
        points = agent.ask(16)
        agent.tell([judged(point, 1e-6) for point in points[:1]])
    assert agent.ask(16)


def test_what_it_was_told_first_is_where_it_starts_if_nothing_drawn_is_better(
    tiny_space: Space,
) -> None:
    agent = TreesGreedyAgent(tiny_space, 0)
    told = tiny_space.sample(np.random.default_rng(5))
    agent.tell([judged(told, 1e-6)])
    while agent.state_dict()["centre"] is None:
        agent.tell([judged(point, 1.5e-6) for point in agent.ask(16)])
    assert agent.state_dict()["centre"] == str(told)


def seen_by(space: Space, count: int, cost_s: Callable[[Point], float]) -> dict[Point, Result]:
    """Random points of the landscape, measured."""
    rng, target = np.random.default_rng(0), goal(space)
    points = {space.sample(rng): None for _ in range(count)}
    return {p: built_in(judged(p, 1e-6 * (1 + distance(p, target))), cost_s(p)) for p in points}


def built_in(result: Result, build_s: float) -> Result:
    return msgspec.structs.replace(result, phases=Phases(build_s=build_s))


def survey_of(space: Space, config: SurveyConfig | None = None) -> Survey:
    rng = np.random.default_rng(1)
    return Survey(space, rng, lambda: space.sample(rng), config)


class TestSurvey:
    def test_what_it_chooses_is_new_and_nearer_to_the_optimum_than_draws(
        self, one_width_space: Space
    ) -> None:
        seen = seen_by(one_width_space, 120, lambda _: 0.1)
        chosen = survey_of(one_width_space).choose(seen, 16)
        assert len(set(chosen)) == 16
        assert not set(chosen) & seen.keys()
        target = goal(one_width_space)
        measured = [distance(point, target) for point in seen]
        assert np.median([distance(point, target) for point in chosen]) < np.quantile(measured, 0.2)

    def test_of_two_that_promise_as_much_it_takes_the_one_that_is_built_sooner(
        self, one_width_space: Space
    ) -> None:
        def slow_if_odd(point: Point) -> float:
            return 20.0 if point.sketch % 2 else 0.1

        def share_of_odd(cost_s: Callable[[Point], float]) -> float:
            seen = seen_by(one_width_space, 200, cost_s)
            # The times say nothing, so that costs decide.
            seen = {p: built_in(judged(p, 1e-6), cost_s(p)) for p in seen}
            chosen = survey_of(one_width_space, SurveyConfig(fresh_share=0.0)).choose(seen, 16)
            return float(np.mean([point.sketch % 2 for point in chosen]))

        assert share_of_odd(slow_if_odd) < share_of_odd(lambda _: 0.1)

    def test_a_share_is_from_fresh_draws(self, one_width_space: Space) -> None:
        seen = seen_by(one_width_space, 60, lambda _: 0.1)
        near = {p for known in seen for p in one_width_space.neighbours(known)}
        config = SurveyConfig(steps=1, fresh_share=1.0)
        chosen = survey_of(one_width_space, config).choose(seen, 16)
        assert len(set(chosen) - near) > 8

    def test_where_nothing_could_be_timed_it_draws(self, tiny_space: Space) -> None:
        rng = np.random.default_rng(0)
        points = [tiny_space.sample(rng) for _ in range(5)]
        failed = {p: Result(point=p, status=Status.CONSTRAINT, reason="x") for p in points}
        assert len(survey_of(tiny_space).choose(failed, 4)) == 4
        assert survey_of(tiny_space).rank(failed, points) == [0, 1, 2, 3, 4]

    def test_failures_count_as_bad_and_not_as_unknown(self, one_width_space: Space) -> None:
        seen = seen_by(one_width_space, 100, lambda _: 0.1)
        failing = {
            p: r if p.sketch % 2 else Result(point=p, status=Status.RUN_ERROR, reason="x")
            for p, r in seen.items()
        }
        assert {p.sketch % 2 for p in failing} == {0, 1}
        order = survey_of(one_width_space).rank(failing, list(failing))
        places = {True: [], False: []}
        for place, index in enumerate(order):
            places[failing[list(failing)[index]].ok].append(place)
        assert np.median(places[True]) < np.median(places[False])

    def test_an_order_is_by_a_fit_that_is_little_older_than_what_is_known(
        self, one_width_space: Space, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fitted_to: list[int] = []

        class Counted(KnobTrees):
            def __init__(self, features: np.ndarray, *rest: Any, **named: Any) -> None:
                fitted_to.append(len(features))
                super().__init__(features, *rest, **named)

        monkeypatch.setattr("schedenv_agents.survey.KnobTrees", Counted)
        seen = seen_by(one_width_space, 120, lambda _: 0.1)
        survey, points = survey_of(one_width_space), list(seen)
        for known in (100, 101, 103, 104, 105, 108):
            survey.rank({point: seen[point] for point in points[:known]}, points[-10:])
        assert fitted_to == [100, 104, 108]

    def test_with_nothing_timed_points_stay_in_the_order_they_have(self, tiny_space: Space) -> None:
        point = tiny_space.default()
        failed = Result(point=point, status=Status.CONSTRAINT, reason="as scripted")
        assert survey_of(tiny_space).rank({point: failed}, [point, point]) == [0, 1]
        assert survey_of(tiny_space).rank({}, [point]) == [0]

    def test_equal_seeds_choose_the_same(self, tiny_space: Space) -> None:
        seen = seen_by(tiny_space, 60, lambda _: 0.1)
        one, other = (survey_of(tiny_space).choose(seen, 8) for _ in range(2))
        assert one == other

    def test_it_learns_from_what_it_expected_how_far_to_trust_itself(
        self, one_width_space: Space
    ) -> None:
        seen = seen_by(one_width_space, 60, lambda _: 0.1)
        survey = survey_of(one_width_space)
        errors = []
        for _ in range(4):
            chosen = survey.choose(seen, 8)
            errors.append(survey.error)
            target = goal(one_width_space)
            seen |= {p: judged(p, 1e-6 * (1 + distance(p, target))) for p in chosen}
        assert errors[0] == 0.5
        assert 0.05 <= errors[-1] <= 0.6
        assert errors[-1] != errors[0]
