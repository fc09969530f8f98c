"""The observation's pieces: chosen by name, the same wherever they are, refused where they cost."""

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from schedenv import hardware as hw
from schedenv.envs.edit import EditEnv
from schedenv.envs.episode import replay
from schedenv.envs.graph import NODE_SIZE, GraphView, point_graph
from schedenv.envs.pieces import DEFAULT, chosen_pieces, keys_of
from schedenv.envs.vector import EditVectorEnv
from schedenv.errors import InputError
from schedenv.space import Space, TileKnob
from schedenv.tvm_features import STORE_FEATURES, per_store_features

from .conftest import OTHER, SMALL

SOME = ["task", "knobs"]


def test_the_pieces_are_cut_out_of_the_default_observation(tables: dict[str, str]) -> None:
    whole = EditEnv(reward="recorded", table=tables[SMALL])
    part = EditEnv(reward="recorded", table=tables[SMALL], observation=SOME)
    seen, expected = part.reset(seed=4)[0], whole.reset(seed=4)[0]
    assert set(expected) == set(keys_of(DEFAULT))
    assert set(seen) == set(part.observation_space) == {"knobs", "knob_mask", "sketch", "task"}
    for key, value in seen.items():
        np.testing.assert_array_equal(value, expected[key])


def test_the_vector_environment_cuts_the_same_pieces(tables: dict[str, str]) -> None:
    arguments: dict[str, Any] = {"reward": "recorded", "table": tables[SMALL], "observation": SOME}
    vector = EditVectorEnv(3, **arguments)
    seen, _ = vector.reset(seed=4)
    assert vector.observation_space.contains(seen)
    single, _ = EditEnv(**arguments).reset(seed=4)
    assert set(seen) == set(single)
    for key, value in single.items():
        np.testing.assert_array_equal(seen[key][0], value)


@pytest.mark.parametrize("names", ["nothing", [], ["knobs", "loops"]])
def test_pieces_that_do_not_exist_are_refused(names: str | list[str]) -> None:
    with pytest.raises(InputError) as refusal:
        chosen_pieces(names)
    assert str(refusal.value) == (
        "expected observation to name some of knobs, task, hardware, progress, stores; "
        f"got {names!r}"
    )


def test_the_vector_environment_refuses_what_needs_tvm(tables: dict[str, str]) -> None:
    with pytest.raises(InputError) as refusal:
        EditVectorEnv(2, reward="recorded", table=tables[SMALL], observation="stores")
    assert str(refusal.value) == (
        "the observation's piece 'stores' takes a TVM call for every point, and the vector "
        "environment makes none; use gymnasium.make, or leave 'stores' out of observation=..."
    )


def test_stores_are_tvms_features_of_the_point(tables: dict[str, str], space_of: Any) -> None:
    env = EditEnv(reward="recorded", table=tables[SMALL], observation=["knobs", "stores"])
    seen, _ = env.reset(seed=1)
    space: Space = space_of(SMALL)
    (expected,) = per_store_features(space.mod, hw.target(hw.detect()), [space.apply(env.point)])
    count = int(seen["store_mask"].sum())
    assert count == len(expected) >= 1
    assert seen["store_mask"].tolist() == [1.0] * count + [0.0] * (16 - count)
    stores = seen["stores"].reshape(-1, STORE_FEATURES)
    np.testing.assert_allclose(stores[:count] * 64, expected, rtol=1e-5)
    assert not stores[count:].any()
    again, _ = env.reset(options={"point": str(env.point)})
    np.testing.assert_array_equal(again["stores"], seen["stores"])
    assert replay(env.state()).valid
    assert env.state().arguments["observation"] == ["knobs", "stores"]


def test_more_stores_than_fit_name_the_limit(tables: dict[str, str]) -> None:
    env = EditEnv(
        reward="recorded", table=tables[OTHER], observation="stores", layout={"stores": 1}
    )
    with pytest.raises(InputError, match=r"hold 1; raise it with layout=\{'stores': \d+\}$"):
        env.reset(seed=0)


@pytest.mark.parametrize("task", [SMALL, OTHER])
def test_the_graph_has_the_points_knobs_and_loops(task: str, space_of: Any) -> None:
    space: Space = space_of(task)
    rng = np.random.default_rng(0)
    for _ in range(10):
        point = space.sample(rng)
        graph = point_graph(space, point)
        knobs = space.sketches[point.sketch].knobs
        tiles = [knob for knob in knobs if isinstance(knob, TileKnob)]
        kinds = graph.nodes[:, :4].sum(axis=0).tolist()
        assert kinds[0] == len(tiles)
        assert kinds[1] == sum(tile.width for tile in tiles)
        assert kinds[2] + kinds[3] == len(knobs) - len(tiles)
        assert graph.nodes.shape == (sum(kinds), NODE_SIZE)
        assert graph.edge_links.min() >= 0
        assert graph.edge_links.max() < len(graph.nodes)
        assert len(set(map(tuple, graph.edge_links.tolist()))) == len(graph.edges)
        # Every level belongs to one axis, and the levels of an axis multiply to its extent.
        for axis in np.flatnonzero(graph.nodes[:, 0]):
            mine = (graph.edges == 0) & (graph.edge_links[:, 1] == axis)
            levels = graph.nodes[graph.edge_links[mine, 0], 4]
            assert levels.sum() == pytest.approx(graph.nodes[axis, 4], abs=1e-6)


def test_different_points_have_different_graphs(space_of: Any) -> None:
    space: Space = space_of(SMALL)
    rng = np.random.default_rng(0)
    points = {space.sample(rng) for _ in range(200)}
    graphs = {
        graph.nodes.tobytes() + graph.edge_links.tobytes()
        for graph in (point_graph(space, point) for point in points)
    }
    assert len(graphs) == len(points)


def test_the_graph_view_is_an_environment_in_gymnasiums_eyes(tables: dict[str, str]) -> None:
    env = GraphView(gymnasium.make("schedenv/Edit-v0", reward="recorded", table=tables[SMALL]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(env, skip_render_check=True)
    observation, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    assert set(observation) == {"graph", "task", "hardware", "progress"}
    for one, other in zip(observation["graph"], again["graph"], strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_graph_view_refuses_an_environment_without_complete_schedules(
    tables: dict[str, str],
) -> None:
    env = gymnasium.make("schedenv/Build-v0", reward="recorded", table=tables[SMALL])
    with pytest.raises(InputError) as refusal:
        GraphView(env)
    assert str(refusal.value) == (
        "GraphView shows complete schedules, which schedenv/Edit-v0 has; got BuildEnv"
    )
