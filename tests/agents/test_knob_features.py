"""What is known of a program from its knobs alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from schedenv_agents.knob_features import KnobFeatures
from schedenv_agents.knob_trees import KnobTrees

from schedenv.space import Point, Space


@given(seed=st.integers(0, 1000))
def test_points_have_equal_features_only_if_they_are_equal(seed: int, tiny_space: Space) -> None:
    rng = np.random.default_rng(seed)
    points = [tiny_space.sample(rng) for _ in range(2)]
    one, other = KnobFeatures(tiny_space).of(points)
    assert (one == other).all() == (points[0] == points[1])


def test_features_of_a_point_do_not_depend_on_what_is_asked_with_it(tiny_space: Space) -> None:
    rng = np.random.default_rng(0)
    points = [tiny_space.sample(rng) for _ in range(20)]
    features = KnobFeatures(tiny_space)
    together = features.of(points)
    alone = [features.of([point])[0] for point in points]
    np.testing.assert_array_equal(together, alone)
    assert np.isfinite(together).all()


def test_the_size_of_the_register_tile_is_among_them(tiny_space: Space) -> None:
    sketch = next(s for s in tiny_space.sketches if any(t.width == 4 for t in s.tiles()))
    rng = np.random.default_rng(0)
    points = [tiny_space.sample(rng) for _ in range(60)]
    points = [point for point in points if point.sketch == sketch.index]
    sizes = [_register_tile(tiny_space, point) for point in points]
    columns = KnobFeatures(tiny_space).of(points).T
    assert any(np.allclose(column, sizes) for column in columns)


def _register_tile(space: Space, point: Point) -> float:
    """log2 of the elements in the innermost spatial level."""
    tiles = [tile for tile in space.sketches[point.sketch].tiles() if not tile.is_reduction]
    return float(sum(np.log2(point.values[tile.start + tile.width - 1]) for tile in tiles))


class TestKnobTrees:
    def test_they_rank_points_as_their_targets_are(self, tiny_space: Space) -> None:
        rng = np.random.default_rng(0)
        points = list({tiny_space.sample(rng): None for _ in range(160)})
        features = KnobFeatures(tiny_space).of(points)
        targets = np.abs(features[:, 3]) + features[:, -2]
        expected = KnobTrees(features[:120], targets[:120], 0).predict(features[120:])
        assert np.corrcoef(expected, targets[120:])[0, 1] > 0.6

    def test_equal_seeds_give_equal_trees_and_others_do_not(self, tiny_space: Space) -> None:
        rng = np.random.default_rng(0)
        features = KnobFeatures(tiny_space).of([tiny_space.sample(rng) for _ in range(40)])
        targets = rng.random(40)
        one, same, other = (KnobTrees(features, targets, s).predict(features) for s in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert (one != other).any()
