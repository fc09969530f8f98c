"""What every installed agent promises."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from schedenv.measure import Result, Status, robust_estimate
from schedenv.space import Point, Space
from schedenv.tuning import Agent, agent_names, make_agent

# These think for a tenth of a second and more before they ask: they are asked less often.
THINKERS = {
    "greedy-prior",
    "greedy-trees",
    "hierarchical",
    "hierarchical-paper",
    "hierarchical-prior",
    "optuna",
}

pytestmark = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in THINKERS else n for n in agent_names()],
)


def judged(point: Point) -> Result:
    """A latency that depends on the point alone."""
    latency_s = 1e-6 * (1 + sum(math.log2(1 + abs(value)) ** 2 for value in point.values))
    samples = tuple(latency_s * (1 + 0.001 * n) for n in range(10))
    return Result(
        point=point,
        status=Status.OK,
        samples_s=samples,
        estimate_s=robust_estimate(samples),
    )


def refused(point: Point) -> Result:
    return Result(point=point, status=Status.CONSTRAINT, reason="as scripted")


def partly_refused(point: Point) -> Result:
    return refused(point) if sum(point.values) % 3 == 0 else judged(point)


def asks(name: str, count: int) -> int:
    """How often to ask an agent that is asked so often if it is quick."""
    return max(3, count // 8) if name in THINKERS else count


def asked_by(
    agent: Agent, judge: Callable[[Point], Result], rounds: int, count: int = 8
) -> list[list[Point]]:
    """What the agent asks for in so many rounds; fewer if it has finished."""
    asked = []
    for _ in range(rounds):
        points = agent.ask(count)
        if not points:
            break
        asked.append(points)
        agent.tell([judge(point) for point in points])
    return asked


@pytest.mark.parametrize("judge", [judged, refused, partly_refused])
def test_it_asks_for_legal_points_and_at_most_as_many_as_wanted(
    name: str, judge: Callable[[Point], Result], tiny_space: Space
) -> None:
    for count in (1, 3, 8):
        rounds = asked_by(make_agent(name, tiny_space, 0), judge, asks(name, 40), count)
        assert rounds
        for points in rounds:
            assert 1 <= len(points) <= count
            assert all(isinstance(point, Point) for point in points)
            assert [tiny_space.explain_illegal(point) for point in points] == [None] * len(points)


@pytest.mark.parametrize("judge", [judged, refused])
def test_it_may_be_told_of_points_before_it_is_asked(
    name: str, judge: Callable[[Point], Result], tiny_space: Space
) -> None:
    agent = make_agent(name, tiny_space, 0)
    agent.tell([judge(point) for point in tiny_space.neighbours(tiny_space.default())[:3]])
    assert len(asked_by(agent, judged, 3)) == 3


@pytest.mark.parametrize("judge", [judged, partly_refused])
def test_it_asks_the_same_again_for_the_same_seed_and_results(
    name: str, judge: Callable[[Point], Result], tiny_space: Space
) -> None:
    first, again = (
        asked_by(make_agent(name, tiny_space, 5), judge, asks(name, 40)) for _ in range(2)
    )
    assert first == again


def test_it_asks_otherwise_for_another_seed(name: str, tiny_space: Space) -> None:
    one, other = (asked_by(make_agent(name, tiny_space, seed), judged, 5) for seed in (1, 2))
    assert one != other


def test_its_randomness_is_its_own(name: str, tiny_space: Space) -> None:
    first = asked_by(make_agent(name, tiny_space, 5), judged, 10)
    np.random.seed(1)
    assert asked_by(make_agent(name, tiny_space, 5), judged, 10) == first


def test_results_that_are_all_failures_do_not_stop_it(name: str, tiny_space: Space) -> None:
    rounds = asked_by(make_agent(name, tiny_space, 0), refused, asks(name, 60))
    # At least one new point an ask: an agent may look at a single one when nothing is known.
    assert len({point for points in rounds for point in points}) >= asks(name, 60)


def test_its_asks_go_on_bringing_new_points(name: str, tiny_space: Space) -> None:
    rounds = asked_by(make_agent(name, tiny_space, 0), judged, asks(name, 200))
    points = [point for asked in rounds for point in asked]
    assert len(set(points)) > 0.9 * len(points)


def test_in_a_space_that_it_can_exhaust_it_still_keeps_its_promises(
    name: str, space_of: Callable[[str], Space]
) -> None:
    space = space_of("nrm:1x2x2")
    for points in asked_by(make_agent(name, space, 0), judged, asks(name, 200)):
        assert all(space.is_legal(point) for point in points)


def test_its_state_is_json(name: str, tiny_space: Space) -> None:
    agent = make_agent(name, tiny_space, 0)
    for _ in range(3):
        state = agent.state_dict()
        assert json.loads(json.dumps(state)) == state
        asked_by(agent, judged, asks(name, 12))
