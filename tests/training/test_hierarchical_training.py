"""The hierarchical agent's policy, trained on some tables and carried to others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from schedenv_agents.coordinates import ROLES
from schedenv_agents.hierarchical import HierarchicalAgent
from schedenv_agents.hierarchical.encoding import SHARED
from schedenv_agents.hierarchical.relevance import SCALES
from schedenv_agents.hierarchical.training import HierarchicalTrainer

from schedenv.envs.vector import EditVectorEnv
from schedenv.errors import InputError
from schedenv.measure.table_file import read_table
from schedenv.space import Point, Space
from schedenv.training import load_policy
from schedenv.training.checkpoint import read_arrays
from schedenv.training.train import Request, train
from schedenv.training.untrained import untrained
from schedenv.tuning import Budget
from schedenv.tuning.agent import find_agent
from schedenv.tuning.simulate import simulate

from .conftest import HELD_OUT, LEARNED

Requests = Callable[..., Request]

SMALL = ("environments=8", "track_steps=4", "epochs=1")


@pytest.fixture(scope="module")
def folder(request_of: Requests, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hierarchical") / "trained"
    train(request_of(out, agent="hierarchical", settings=SMALL))
    return out


def test_a_policy_is_judged_on_what_it_learned_and_on_what_was_held_out(folder: Path) -> None:
    info = load_policy(folder).info
    assert info.agent == "hierarchical"
    for group in ("evaluated", "held_out"):
        assert 0 < info.metrics[f"env/{group}_share_of_optimum"] <= 1
        assert info.metrics[f"env/{group}_geomean_speedup"] > 0
        assert 0 < info.metrics[f"env/{group}_failure_rate"] < 1


def test_training_changes_the_weights_and_the_same_again_gives_the_same(
    request_of: Requests, folder: Path, tmp_path: Path
) -> None:
    train(request_of(tmp_path / "again", agent="hierarchical", settings=SMALL))
    one, other = load_policy(folder), load_policy(tmp_path / "again")
    weights, same = (
        read_arrays(f, p.info.policy) for f, p in ((folder, one), (tmp_path / "again", other))
    )
    assert all(np.array_equal(weights[name], same[name]) for name in weights)
    before = untrained(one).policy
    assert any(not np.array_equal(weights[name], before.weights[name]) for name in weights)  # type: ignore[attr-defined]


def test_a_run_goes_on_from_its_checkpoint(request_of: Requests, tmp_path: Path) -> None:
    first = train(request_of(tmp_path, 64, agent="hierarchical", settings=SMALL)).info
    again = train(request_of(tmp_path, 192, agent="hierarchical", settings=SMALL, resume=True)).info
    assert first.steps < again.steps
    assert again.steps >= 192


def test_a_checkpoint_is_an_agent_on_a_task_that_it_never_saw(
    folder: Path, tables: dict[str, str]
) -> None:
    table = read_table(Path(tables[HELD_OUT]))
    run = simulate(table, find_agent(f"mine={folder}"), Budget(trials=16), seed=0)
    again = simulate(table, find_agent(f"mine={folder}"), Budget(trials=16), seed=0)
    assert run.trials == 16
    assert run == again
    assert run.agent == "mine"


def test_what_was_learned_moves_the_tracks(folder: Path, tiny_space: Space) -> None:
    policy = load_policy(folder).policy
    fresh = HierarchicalAgent(tiny_space, 0)
    taught = HierarchicalAgent(tiny_space, 0, weights=policy.weights)  # type: ignore[attr-defined]
    states, changes = np.ones((1, SHARED)), np.eye(SHARED)[None, :4]
    odds = [agent._policy.log_odds(states, changes, np.array([4])) for agent in (fresh, taught)]  # type: ignore[union-attr]
    assert not np.allclose(*odds)


def test_it_takes_no_actions_in_an_environment(folder: Path, tables: dict[str, str]) -> None:
    envs = EditVectorEnv(2, reward="recorded", table=tables[LEARNED])
    observations, _ = envs.reset(seed=0)
    with pytest.raises(InputError) as error:
        load_policy(folder).act(observations, envs.action_masks())
    assert str(error.value) == (
        "a checkpoint of the agent hierarchical moves the tracks of its own search and takes no "
        "actions in an environment; tune with it, or train with --agent ppo"
    )


@pytest.mark.parametrize("scales", [None, np.ones(3), np.zeros(len(ROLES))])
def test_scales_that_no_training_gives_are_refused(folder: Path, scales: np.ndarray | None) -> None:
    weights = dict(load_policy(folder).policy.weights)  # type: ignore[attr-defined]
    del weights[SCALES]
    if scales is not None:
        weights[SCALES] = scales
    with pytest.raises(ValueError, match=r"^model.scales: expected "):
        HierarchicalTrainer.make_policy(weights)


def test_scales_are_learned_with_the_first_steps_and_kept_when_a_run_goes_on(
    request_of: Requests, folder: Path, tmp_path: Path
) -> None:
    trained = load_policy(folder)
    before, after = (one.policy.weights[SCALES] for one in (untrained(trained), trained))  # type: ignore[attr-defined]
    assert (before == 1).all()
    assert (after != 1).any()
    train(request_of(tmp_path, 64, agent="hierarchical", settings=SMALL))
    train(request_of(tmp_path, 192, agent="hierarchical", settings=SMALL, resume=True))
    assert np.array_equal(load_policy(tmp_path).policy.weights[SCALES], after)  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_weights_of_something_else_are_refused(folder: Path, change: str) -> None:
    weights = dict(load_policy(folder).policy.weights)  # type: ignore[attr-defined]
    if change == "missing":
        del weights["actor.0.bias"]
    else:
        weights["actor.0.bias"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"^actor: expected arrays of .*, got "):
        HierarchicalTrainer.make_policy(weights)


def test_a_landscape_answers_for_points_as_the_table_does(tables: dict[str, str]) -> None:
    table = read_table(Path(tables[LEARNED]))
    (landscape,) = EditVectorEnv(1, reward="recorded", table=tables[LEARNED]).landscapes
    points: list[Point] = [row.point for row in table.rows[::5]]
    seconds = landscape.seconds(points)
    for row, second in zip(table.rows[::5], seconds, strict=True):
        assert second == (np.inf if row.estimate_s is None else row.estimate_s)
    assert np.isinf(seconds).any()
    assert landscape.facts.optimum_s == table.optimum_s
