"""Evolutionary search on a landscape whose optimum is known."""

import numpy as np
from schedenv_agents.evolutionary import EvolutionaryAgent, EvolutionaryConfig
from schedenv_agents.random import RandomAgent

from schedenv.measure import Result, Status
from schedenv.space import Space

from .landscape import best_distance, judged


def test_it_comes_nearer_to_the_optimum_than_random_search_with_equal_trials(
    one_width_space: Space,
) -> None:
    seeds = range(8)
    bred = [best_distance(EvolutionaryAgent(one_width_space, s), one_width_space) for s in seeds]
    random = [best_distance(RandomAgent(one_width_space, s), one_width_space) for s in seeds]
    assert np.mean(bred) < 0.5 * np.mean(random)


def test_only_the_fastest_that_worked_are_parents(tiny_space: Space) -> None:
    agent = EvolutionaryAgent(tiny_space, 0, EvolutionaryConfig(founders=8, parents=3))
    asked = agent.ask(8)
    results = [judged(point, 1e-6 * (8 - n)) for n, point in enumerate(asked)]
    results[7] = Result(point=asked[7], status=Status.WRONG_RESULT, reason="as scripted")
    agent.tell(results)
    parents = [point for _, point in agent.state_dict()["parents"]]
    assert parents == [str(asked[n]) for n in (6, 5, 4)]


def test_children_of_crossover_have_each_knob_from_one_of_their_parents(
    one_width_space: Space,
) -> None:
    space = one_width_space
    agent = EvolutionaryAgent(space, 0)
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(40)]
    parents = list(dict.fromkeys(point for point in drawn if point.sketch == 0))[:2]
    children = [agent._crossed(*parents) for _ in range(200)]
    legal = {child for child in children if child is not None}
    assert len(legal) > 2
    for child in legal:
        assert space.is_legal(child)
        for knob in space.sketches[0].knobs:
            slots = slice(knob.start, knob.start + knob.width)
            assert child.values[slots] in {parent.values[slots] for parent in parents}


def test_parents_of_two_sketches_have_no_child(tiny_space: Space) -> None:
    rng = np.random.default_rng(0)
    drawn = [tiny_space.sample(rng) for _ in range(40)]
    one, other = (next(p for p in drawn if p.sketch == sketch) for sketch in (0, 1))
    assert EvolutionaryAgent(tiny_space, 0)._crossed(one, other) is None
