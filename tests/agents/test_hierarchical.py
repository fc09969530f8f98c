"""The hierarchical agent and its parts."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from schedenv_agents.coordinates import Coordinates
from schedenv_agents.forecast import Forecast
from schedenv_agents.hierarchical import PAPER, HierarchicalAgent, HierarchicalConfig, PriorAgent
from schedenv_agents.hierarchical.bandit import SlidingWindowBandit
from schedenv_agents.hierarchical.encoding import Encoding
from schedenv_agents.hierarchical.policy import Policy
from schedenv_agents.hierarchical.tracks import Score, Tracks
from schedenv_agents.tile_prior import TilePrior

from schedenv.measure.table import Table
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.space import Point, Space
from schedenv.tuning import Budget
from schedenv.tuning.agent import AgentFactory
from schedenv.tuning.simulate import simulate

from .landscape import assert_search_alike, judged

PLAIN = HierarchicalConfig()
WITHOUT = {
    "the bandit": replace(PLAIN, sketch_bandit=False),
    "the policy": replace(PLAIN, learn_policy=False),
    "the adaptive stop": replace(PLAIN, adaptive_stop=False),
    "the model": replace(PLAIN, model=False),
    "neighbours": replace(PLAIN, score_neighbours=False),
}


@pytest.fixture(scope="module")
def table() -> Table:
    return read_table(shipped_tables()["gmm"])


def best(table: Table, config: HierarchicalConfig, trials: int, seed: int = 0) -> float:
    """The best quality within the trials."""
    agent = AgentFactory("it", lambda space, seed, _: HierarchicalAgent(space, seed, config))
    run = simulate(table, agent, Budget(trials=trials), seed)
    assert run.trials == trials
    return max(table.optimum_s / step.best_s for step in run.curve)


class TestBandit:
    def test_every_arm_is_tried_once_before_any_is_tried_again(self) -> None:
        bandit = SlidingWindowBandit(3, 0.25, 100)
        chosen = []
        for _ in range(3):
            chosen.append(bandit.choose())
            bandit.reward(chosen[-1], 0.0)
        assert chosen == [0, 1, 2]

    def test_a_better_arm_is_chosen_more_often(self) -> None:
        bandit = SlidingWindowBandit(2, 0.25, 100)
        chosen = []
        for _ in range(50):
            chosen.append(bandit.choose())
            bandit.reward(chosen[-1], [0.2, 0.8][chosen[-1]])
        assert chosen.count(1) > 40

    def test_rewards_outside_the_window_are_forgotten(self) -> None:
        bandit = SlidingWindowBandit(2, 0.1, 6)
        bandit.reward(0, 1.0)
        for _ in range(6):
            bandit.reward(1, 0.1)
        assert bandit.choose() == 0, "not in the window any more"


def expected(forecast: Forecast) -> Score:
    """What a forecast expects of points."""
    return lambda points: forecast.predict(points)[0]


class TestTracks:
    def test_every_step_is_a_legal_move_and_hopeless_tracks_end_early(
        self, tiny_space: Space
    ) -> None:
        rng = np.random.default_rng(0)
        encoding = Encoding(tiny_space)
        starts = [tiny_space.sample(rng) for _ in range(16)]
        seconds = dict(zip(starts, rng.uniform(1, 2, len(starts)), strict=True))
        config = replace(PLAIN, steps=8, stop_every=2, fewest_tracks=4)
        score = expected(Forecast(Coordinates(tiny_space), seconds))
        walk = Tracks(tiny_space, encoding, config).walk(starts, score, Policy(config, seed=0), rng)
        assert walk.ended_early == 16
        assert walk.best.shape == (7, 16)
        assert (walk.best[0] == score(starts)).all()
        assert (np.diff(walk.best, axis=0) <= 0).all()
        assert (walk.last >= walk.best[-1]).all()
        assert walk.steps is not None
        assert len(walk.steps.states) == 2 * (16 + 8 + 4)
        assert all(tiny_space.is_legal(point) for point in walk.seen)
        assert set(walk.visited) <= set(walk.seen)


class TestPolicy:
    def test_it_learns_which_move_is_rewarded(self, tiny_space: Space) -> None:
        rng = np.random.default_rng(0)
        encoding = Encoding(tiny_space)
        starts = [tiny_space.sample(rng) for _ in range(32)]
        coordinates = Coordinates(tiny_space)
        # Fast where the first coordinate of the tiling is large.
        logs = -coordinates.of(starts)[:, -8:].sum(axis=1)
        forecast = Forecast(coordinates, dict(zip(starts, np.exp(logs), strict=True)))
        config = replace(PLAIN, adaptive_stop=False, optimism=0.0, discount=0.0, steps=2)
        tracks, policy = Tracks(tiny_space, encoding, config), Policy(config, seed=0)
        score = expected(forecast)

        def reward() -> float:
            walk = tracks.walk(starts, score, policy, rng)
            assert walk.steps is not None
            policy.learn(walk.steps)
            return float(walk.steps.targets.mean())

        rewards = [reward() for _ in range(60)]
        assert np.mean(rewards[-15:]) > np.mean(rewards[:15])


@pytest.mark.parametrize("config", [PAPER, *WITHOUT.values()], ids=["PAPER", *WITHOUT])
def test_every_level_can_be_switched_off(table: Table, config: HierarchicalConfig) -> None:
    assert best(table, config, trials=24) > 0.5


def test_it_repeats_itself_exactly(table: Table) -> None:
    assert best(table, PLAIN, 32, seed=3) == best(table, PLAIN, 32, seed=3)


@pytest.mark.slow
def test_it_is_better_than_random_search_on_a_table(table: Table) -> None:
    ours = [best(table, PLAIN, 32, seed) for seed in range(8)]
    random = [simulate(table, "random", Budget(trials=32), seed).curve[-1] for seed in range(8)]
    assert np.mean(ours) > np.mean([table.optimum_s / step.best_s for step in random])


def test_random_points_are_drafted_if_it_is_told_to(space_of: Callable[[str], Space]) -> None:
    space = space_of("gmm:1x64x96x128")

    def fills_vectors(point: Point) -> bool:
        *_, last = (t for t in space.sketches[point.sketch].tiles() if not t.is_reduction)
        return point.values[last.start + last.width - 1] % 8 == 0

    drafting = HierarchicalAgent(space, 0, HierarchicalConfig(first=16, drafted=1.0)).ask(16)
    uniform = HierarchicalAgent(space, 0, HierarchicalConfig(first=16)).ask(16)
    assert len(set(drafting)) == 16
    assert all(map(fills_vectors, drafting))
    assert not all(map(fills_vectors, uniform))


class TestWithAPrior:
    def test_its_tracks_begin_with_what_is_expected_and_two_points_with_nothing(
        self, tiny_space: Space
    ) -> None:
        agent, prior = PriorAgent(tiny_space, 0), TilePrior(tiny_space)
        first = agent.ask(16)
        assert len(first) == 2
        agent.tell([judged(point, 1e-6) for point in first])
        chosen = agent.ask(16)
        assert len(chosen) == 4
        rng = np.random.default_rng(0)
        drawn = prior.expect([tiny_space.sample(rng) for _ in range(50)])
        assert np.median(prior.expect(chosen)) < np.quantile(drawn, 0.25)

    def test_where_it_has_none_it_is_the_plain_agent(
        self, space_of: Callable[[str], Space]
    ) -> None:
        space = space_of("sfm:16x16")
        assert_search_alike(PriorAgent(space, 0), HierarchicalAgent(space, 0))
