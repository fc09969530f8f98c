"""Optuna's estimator as an agent: what it is shown, and what it makes of it."""

import subprocess
import sys
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from schedenv_agents.optuna_search import OptunaAgent
from schedenv_agents.random import RandomAgent

from schedenv.envs.arguments import read_tables
from schedenv.measure import Result, Status
from schedenv.space import Point, Space
from schedenv.tuning import Budget
from schedenv.tuning.agent import find_agent
from schedenv.tuning.simulate import simulate

from .landscape import best_distance, judged


@pytest.mark.parametrize("spec", ["gmm:1x32x32x32", "sfm:8x12", "nrm:1x2x2"])
def test_it_asks_for_legal_points_in_every_family_of_sketches(
    spec: str, space_of: Callable[[str], Space]
) -> None:
    space = space_of(spec)
    agent = OptunaAgent(space, 0)
    for _ in range(3):
        points = agent.ask(8)
        assert [space.explain_illegal(point) for point in points] == [None] * 8
        agent.tell([judged(point, 1e-6 * (1 + sum(map(abs, point.values)))) for point in points])


def test_it_asks_the_same_again_and_leaves_other_randomness_alone(tiny_space: Space) -> None:
    def asked(seed: int) -> list[Point]:
        agent = OptunaAgent(tiny_space, seed)
        found = []
        for _ in range(4):
            points = agent.ask(8)
            found += points
            agent.tell(
                [judged(point, 1e-6 * (1 + sum(map(abs, point.values)))) for point in points]
            )
        return found

    first = asked(5)
    np.random.seed(1)
    assert asked(5) == first
    assert asked(6) != first


def test_it_is_told_fewer_results_than_it_asked_for_and_goes_on(tiny_space: Space) -> None:
    agent = OptunaAgent(tiny_space, 0)
    points = agent.ask(8)
    agent.tell([judged(point, 1e-6) for point in points[:3]])
    assert agent.state_dict()["told"] == 3
    assert len(agent.ask(8)) == 8


def test_what_failed_is_worse_than_anything_and_is_not_asked_for_again(tiny_space: Space) -> None:
    agent = OptunaAgent(tiny_space, 0)
    seen: set[Point] = set()
    for _ in range(4):
        points = agent.ask(8)
        assert not seen & set(points)
        seen |= set(points)
        agent.tell([Result(point=p, status=Status.CRASH, reason="as scripted") for p in points])
    assert agent.state_dict() == {"asked": 32, "told": 0, "best": None}


def test_it_searches_recorded_tables() -> None:
    (table,) = read_tables(["gmm"], None).tables
    run = simulate(table, find_agent("optuna"), Budget(trials=32), 0)
    assert run.trials == 32
    assert run.fault is None
    assert run.optimum_s <= run.curve[-1].best_s


def test_it_says_nothing_and_warns_of_nothing(
    tiny_space: Space, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OptunaAgent(tiny_space, 0).ask(4)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_without_optuna_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['optuna'] = None\n"
        "from schedenv_agents.optuna_search import OptunaAgent\n"
        "try:\n    OptunaAgent(None, 0)\n"
        "except Exception as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == (
        "the agent optuna needs the package 'optuna', which is not installed; "
        "run: pip install 'schedenv[peers]'"
    )


@pytest.mark.slow
def test_it_comes_nearer_to_the_optimum_than_random_search_with_equal_trials(
    one_width_space: Space,
) -> None:
    seeds = range(3)
    optuna = [best_distance(OptunaAgent(one_width_space, s), one_width_space) for s in seeds]
    random = [best_distance(RandomAgent(one_width_space, s), one_width_space) for s in seeds]
    assert np.mean(optuna) < 0.7 * np.mean(random)


@pytest.mark.slow
def test_a_long_study_keeps_the_best_trials(tiny_space: Space) -> None:
    agent = OptunaAgent(tiny_space, 0)
    best = []
    for _ in range(24):
        points = agent.ask(16)
        agent.tell([judged(point, 1e-6 * (1 + sum(map(abs, point.values)))) for point in points])
        trials = agent._study.get_trials(deepcopy=False)
        assert len(trials) <= 256 + 16
        best.append(agent._study.best_value)
    assert best == sorted(best, reverse=True)
