"""Greedy local search on landscapes whose optimum is known."""

from dataclasses import replace

import msgspec
import numpy as np
from schedenv_agents.greedy_local import DropletAgent, GreedyConfig, GreedyLocalAgent
from schedenv_agents.random import RandomAgent

from schedenv.measure import Result, Status, robust_estimate
from schedenv.space import Point, Space

from .landscape import best_distance, distance, goal, judged


def test_it_comes_nearer_to_the_optimum_than_random_search_with_equal_trials(
    one_width_space: Space,
) -> None:
    seeds = range(8)
    greedy = [best_distance(GreedyLocalAgent(one_width_space, s), one_width_space) for s in seeds]
    random = [best_distance(RandomAgent(one_width_space, s), one_width_space) for s in seeds]
    assert np.mean(greedy) < 0.5 * np.mean(random)


def start_at_the_best_of_a_storm(space: Space) -> tuple[GreedyLocalAgent, str]:
    """An agent after its storm, about to descend, and its centre."""
    agent = GreedyLocalAgent(space, 0, GreedyConfig(storm=8, batch=8, starts=1))
    storm = agent.ask(8)
    agent.tell([judged(p, 1e-6 * (2 if n else 1)) for n, p in enumerate(storm)])
    return agent, str(storm[0])


def test_it_descends_from_the_best_point_of_its_storm_through_its_neighbours(
    tiny_space: Space,
) -> None:
    agent, centre = start_at_the_best_of_a_storm(tiny_space)
    asked = agent.ask(8)
    assert agent.state_dict()["centre"] == centre
    assert set(asked) <= set(tiny_space.neighbours(Point.parse(centre)))
    assert len(set(asked)) == 8


def test_it_asks_for_few_points_at_once_so_that_it_can_move_on_soon(tiny_space: Space) -> None:
    agent = GreedyLocalAgent(tiny_space, 0)
    storm = [point for _ in range(2) for point in told(agent, agent.ask(16))]
    assert len(storm) == GreedyConfig.storm == 2 * GreedyConfig.batch
    assert len(agent.ask(16)) == GreedyConfig.batch
    assert agent.state_dict()["centre"] in map(str, storm)


def test_where_most_neighbours_are_known_programs_it_asks_for_more(tiny_space: Space) -> None:
    def asked(config: GreedyConfig, *, repeated: bool) -> list[int]:
        agent = GreedyLocalAgent(tiny_space, 0, replace(config, storm=8))
        for _ in range(2):
            agent.tell([judged(p, 1e-6) for p in agent.ask(64)])
        counts = []
        for _ in range(4):
            points = agent.ask(64)
            counts.append(len(points))
            results = [judged(p, 2e-6) for p in points]
            agent.tell([msgspec.structs.replace(r, repeated=repeated) for r in results])
        return counts

    assert asked(GreedyConfig(), repeated=False) == [4] * 4
    assert asked(GreedyConfig(), repeated=True) == [4, 5, 6, 8]
    assert asked(GreedyConfig(refill=False), repeated=True) == [4] * 4


def told(agent: GreedyLocalAgent, points: list[Point]) -> list[Point]:
    """The points, after the agent was told of them."""
    agent.tell([judged(point, 1e-6) for point in points])
    return points


def test_neighbours_come_in_the_order_in_which_a_model_has_them_if_it_is_told_to(
    tiny_space: Space,
) -> None:
    target = goal(tiny_space)

    def first_distances(config: GreedyConfig) -> float:
        """How far the neighbours are that it asks for first, after a storm."""
        found = []
        for seed in range(8):
            agent = GreedyLocalAgent(tiny_space, seed, config)
            for _ in range(config.storm // config.batch):
                points = agent.ask(config.batch)
                agent.tell([judged(p, 1e-6 * (1 + distance(p, target))) for p in points])
            found += [distance(point, target) for point in agent.ask(config.batch)]
        return float(np.mean(found))

    config = GreedyConfig(storm=32)
    assert first_distances(replace(config, forecast=True)) < first_distances(config)


def test_it_moves_to_the_best_of_the_faster_neighbours(tiny_space: Space) -> None:
    agent, _ = start_at_the_best_of_a_storm(tiny_space)
    asked = agent.ask(8)
    latencies = [2.0, 0.8, 2.0, 0.5, 0.9, 2.0, 2.0, 2.0]
    agent.tell([judged(p, 1e-6 * s) for p, s in zip(asked, latencies, strict=True)])
    assert agent.state_dict()["centre"] == str(asked[3])


def test_it_does_not_move_to_a_neighbour_that_is_faster_by_luck(tiny_space: Space) -> None:
    agent, centre = start_at_the_best_of_a_storm(tiny_space)
    asked = agent.ask(8)
    # A lower estimate, from samples that overlap those of the centre.
    known = agent._centre
    assert known is not None
    assert known.estimate_s is not None
    samples = tuple(s * (0.97 if n < 3 else 1.01) for n, s in enumerate(sorted(known.samples_s)))
    lucky = robust_estimate(samples)
    assert lucky < known.estimate_s
    results = [
        Result(
            point=point,
            status=Status.OK,
            samples_s=samples,
            estimate_s=lucky,
        )
        for point in asked
    ]
    agent.tell(results)
    assert agent.state_dict()["centre"] == centre


def test_it_does_not_move_to_a_neighbour_that_failed(tiny_space: Space) -> None:
    agent, centre = start_at_the_best_of_a_storm(tiny_space)
    agent.tell([Result(point=p, status=Status.CRASH, reason="x") for p in agent.ask(8)])
    assert agent.state_dict()["centre"] == centre


def test_when_every_start_is_used_up_it_storms_again(tiny_space: Space) -> None:
    agent, centre = start_at_the_best_of_a_storm(tiny_space)
    neighbours = set(tiny_space.neighbours(Point.parse(centre)))
    asked = agent.ask(8)
    while set(asked) <= neighbours:
        agent.tell([judged(point, 1e-5) for point in asked])
        asked = agent.ask(8)
    assert agent.state_dict()["storm_left"] > 0
    assert agent.state_dict()["centre"] is None


def test_it_looks_one_step_further_along_its_moves_when_told_to_fill_its_batches(
    tiny_space: Space,
) -> None:
    config = GreedyConfig(storm=1, batch=1000, from_default=True, speculate=True)
    agent = GreedyLocalAgent(tiny_space, 0, config)
    (centre,) = agent.ask(1000)
    agent.tell([judged(centre, 1e-6)])
    asked = agent.ask(1000)
    neighbours = set(tiny_space.neighbours(centre))
    assert neighbours < set(asked)
    further = [point for point in asked if point not in neighbours]
    assert all(neighbours & set(tiny_space.neighbours(point)) for point in further)
    assert len(set(asked)) == len(asked)
    assert centre not in asked


def test_droplet_descends_from_the_plainest_point_and_then_draws_a_random_one(
    tiny_space: Space,
) -> None:
    agent = DropletAgent(tiny_space, 0)
    assert agent.ask(16) == [tiny_space.default()]
    agent.tell([judged(tiny_space.default(), 1e-6)])
    asked = agent.ask(16)
    assert set(asked) <= set(tiny_space.neighbours(tiny_space.default()))
    while agent.state_dict()["centre"] == str(tiny_space.default()):
        agent.tell([judged(point, 1e-5) for point in asked])
        asked = agent.ask(16)
    assert agent.state_dict()["storm_left"] == len(asked) == 1
