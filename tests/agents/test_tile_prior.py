"""What is known of a program before anything is measured."""

from collections.abc import Callable

import numpy as np
import pytest
from schedenv_agents.greedy_trees import PriorGreedyAgent, TreesGreedyAgent
from schedenv_agents.survey import Survey, SurveyConfig
from schedenv_agents.tile_features import TileFeatures
from schedenv_agents.tile_prior import TilePrior, fit, prior_of
from scipy.stats import spearmanr

from schedenv.errors import CorruptModelError
from schedenv.space import Point, Space, SubSpace
from schedenv.space.draft import Drafter, is_tiled

from .landscape import assert_search_alike, judged

SpaceOf = Callable[[str], Space]
Floats = np.ndarray


def drawn(space: Space, count: int) -> list[Point]:
    rng = np.random.default_rng(0)
    points = {space.sample(rng): None for _ in range(3 * count)}
    return [point for point in points if is_tiled(space.sketches[point.sketch])][:count]


def pretended(features: Floats, names: tuple[str, ...]) -> Floats:
    """Times that depend on the features alone: spilled registers and short vectors are slow."""
    of = dict(zip(names, features.T, strict=True))
    return of["spilled"] + 0.5 * np.abs(of["vector length"] - 4)


class TestAPrior:
    def test_what_it_learned_of_one_operator_holds_for_another(self, space_of: SpaceOf) -> None:
        tasks = []
        for spec in ("gmm:1x32x32x32", "c1d:1x16x8x16x3x2x1", "dep:1x14x14x32x3x2x1"):
            space = space_of(spec)
            features = TileFeatures(space).of(drawn(space, 300))
            tasks.append((features, pretended(features, TileFeatures(space).names)))
        names = TileFeatures(space).names
        unseen = space_of("cbr:1x6x6x8x16x3x1x1")
        prior = TilePrior(unseen, fit(tasks, names))
        points = drawn(unseen, 200)
        truth = pretended(prior.features.of(points), names)
        assert spearmanr(prior.expect(points), truth)[0] > 0.8

    def test_a_task_with_more_points_does_not_count_more(self, tiny_space: Space) -> None:
        names = TileFeatures(tiny_space).names
        few = TileFeatures(tiny_space).of(drawn(tiny_space, 100))
        many = np.repeat(few, 20, axis=0)
        slope = pretended(few, names)
        equal = TilePrior(tiny_space, fit([(few, slope), (many, -np.repeat(slope, 20))], names))
        expected = equal.of_features(few)
        # One says what the other denies.
        assert abs(spearmanr(expected, slope)[0]) < 0.9

    def test_the_shipped_one_knows_that_vectors_are_faster(self, tiny_space: Space) -> None:
        sketch = next(s for s in tiny_space.sketches if is_tiled(s))
        lanes = tiny_space.hardware.vector_lanes("float32")

        def with_length(length: int) -> Point:
            values = list(tiny_space.default(sketch.index).values)
            for tile in sketch.tiles():
                if tile.name.endswith("v_i"):
                    values[tile.start : tile.start + 4] = (4, 2, 1, 4)
                if tile.name.endswith("v_j"):
                    values[tile.start : tile.start + 4] = (32 // length, 1, 1, length)
            return Point(sketch.index, tuple(values))

        prior = TilePrior(tiny_space)
        whole, single = prior.expect([with_length(lanes), with_length(1)])
        assert whole < single

    def test_weights_of_other_features_are_refused(self, tiny_space: Space) -> None:
        features = np.random.default_rng(0).random((50, 2))
        weights = fit([(features, features[:, 0])], ["one", "other"])
        with pytest.raises(CorruptModelError) as caught:
            TilePrior(tiny_space, weights)
        known = len(TileFeatures(tiny_space).names)
        assert str(caught.value) == (
            f"the prior was learned from 2 features, {known} are known, not all the same; fit it "
            "again with python runs/tile_prior.py"
        )

    def test_there_is_none_where_no_reduction_is_tiled_or_the_program_is_not_known(
        self, space_of: SpaceOf, tiny_space: Space
    ) -> None:
        assert prior_of(space_of("sfm:16x16")) is None
        part = SubSpace(tiny_space.sketches, [tiny_space.default()], tiny_space.canonical)
        assert prior_of(part) is None
        assert prior_of(tiny_space) is not None


class TestAStart:
    def test_its_points_are_legal_different_and_better_looking_than_draws(
        self, one_width_space: Space
    ) -> None:
        prior = TilePrior(one_width_space)
        rng = np.random.default_rng(0)
        drafter = Drafter(one_width_space)
        survey = Survey(
            one_width_space, rng, lambda: drafter.sample(rng), SurveyConfig(first=64), prior
        )
        start = survey.start(8)
        assert len(set(start)) == 8
        assert [one_width_space.explain_illegal(point) for point in start] == [None] * 8
        drafts = [drafter.sample(rng) for _ in range(50)]
        assert prior.expect(start).max() < np.median(prior.expect(drafts))

    def test_no_two_have_the_same_innermost_tile_while_there_are_others(
        self, tiny_space: Space
    ) -> None:
        rng = np.random.default_rng(0)
        survey = Survey(
            tiny_space, rng, lambda: tiny_space.sample(rng), prior=TilePrior(tiny_space)
        )
        inner = [
            tuple(
                point.values[tile.start + tile.width - 1]
                for tile in tiny_space.sketches[point.sketch].tiles()
                if not tile.is_reduction
            )
            for point in survey.start(8)
        ]
        assert len(set(inner)) == 8

    def test_in_a_space_that_is_looked_through_it_gives_what_there_is(
        self, space_of: SpaceOf
    ) -> None:
        space = space_of("gmm:1x2x2x2")
        rng = np.random.default_rng(0)
        survey = Survey(
            space, rng, lambda: space.sample(rng), SurveyConfig(steps=60, first=1), TilePrior(space)
        )
        start = survey.start(8)
        assert len(set(start)) == 8
        assert all(space.is_legal(point) for point in start)


class TestTheAgent:
    def test_its_first_points_are_the_priors_but_for_two(self, tiny_space: Space) -> None:
        agent = PriorGreedyAgent(tiny_space, 0)
        first: list[Point] = []
        for _ in range(2):
            asked = agent.ask(16)
            agent.tell([judged(point, 1e-6) for point in asked])
            first += asked
        assert len(first) == 8
        expected = TilePrior(tiny_space).expect(first)
        assert expected[:6].max() < expected[6:].max()
        assert agent.ask(16)

    def test_what_it_was_told_before_does_not_cost_it_the_start(self, tiny_space: Space) -> None:
        agent, told = PriorGreedyAgent(tiny_space, 0), PriorGreedyAgent(tiny_space, 0)
        told.tell([judged(tiny_space.default(), 1e-6)])
        assert told.ask(4) == agent.ask(4)

    def test_without_a_prior_it_is_greedy_trees(self, space_of: SpaceOf) -> None:
        space = space_of("sfm:16x16")
        assert_search_alike(PriorGreedyAgent(space, 0), TreesGreedyAgent(space, 0))
