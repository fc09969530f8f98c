"""Finding trainers, and reading their settings."""

import numpy as np
import pytest

from schedenv.envs.vector import EditVectorEnv
from schedenv.errors import InputError, UnknownNameError
from schedenv.training import find_trainer, trainer_names
from schedenv.training.trainer import read_settings

SEARCH_ONLY = {"hierarchical"}
"""Trainers of policies that guide a search and take no actions in an environment."""

DEFAULTS = {"width": 128, "gamma": 0.99, "activation": "tanh"}


def test_every_installed_trainer_is_found_and_says_how_many_environments_it_wants() -> None:
    assert "ppo" in trainer_names()
    for name in trainer_names():
        assert isinstance(find_trainer(name).defaults["environments"], int)


@pytest.mark.parametrize("name", trainer_names())
def test_every_trainer_learns_and_goes_on_from_its_own_arrays(name: str) -> None:
    trainer_class = find_trainer(name)
    settings = {**trainer_class.defaults, "environments": 4}
    envs = EditVectorEnv(4, reward="recorded", table="gmm", autoreset_mode="same_step")
    first, second = (trainer_class(envs, seed, settings) for seed in (0, 1))
    scalars = first.learn()
    assert all(isinstance(value, float) for value in scalars.values())
    assert first.steps > 0
    second.restore(first.weights(), first.state(), first.steps)
    assert second.steps == first.steps
    for mine, theirs in ((second.weights(), first.weights()), (second.state(), first.state())):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    with pytest.raises(ValueError, match=r"."):
        trainer_class.make_policy({})
    second.learn()
    assert second.steps > first.steps


@pytest.mark.parametrize("name", sorted({*trainer_names()} - SEARCH_ONLY))
def test_a_policy_acts_in_environments(name: str) -> None:
    trainer_class = find_trainer(name)
    envs = EditVectorEnv(4, reward="recorded", table="gmm", autoreset_mode="same_step")
    trainer = trainer_class(envs, 0, {**trainer_class.defaults, "environments": 4})
    policy = trainer_class.make_policy(trainer.weights())
    rng = np.random.default_rng(0)
    observations, _ = envs.reset(seed=0)
    for draw in (None, rng, None, rng):
        masks = envs.action_masks()
        actions = policy.act(observations, masks, draw)
        assert masks[np.arange(4), actions].all()
        observations, *_ = envs.step(actions)


def test_an_agent_that_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UnknownNameError) as error:
        find_trainer("greedy")
    assert str(error.value) == (
        f"unknown agent that can be trained 'greedy'; known: {', '.join(trainer_names())} "
        "(agents without weights, such as greedy, need no training: schedenv tune)"
    )


def test_settings_replace_defaults_and_keep_their_types() -> None:
    settings = read_settings(DEFAULTS, ["width=64", "gamma=1", "activation=relu"])
    assert settings == {"width": 64, "gamma": 1.0, "activation": "relu"}
    assert isinstance(settings["gamma"], float)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("widht=64", "unknown setting 'widht'; did you mean 'width'? (expected NAME=VALUE)"),
        ("width=2.5", "expected width as an integer, got '2.5'"),
        ("gamma", "expected gamma as a number, got ''"),
        ("gamma=nan", "expected gamma of at least 0, got nan"),
        ("width=-1", "expected width of at least 0, got -1"),
        ("width=0", "expected width of at least 1, got 0"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(given: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        read_settings(DEFAULTS, [given])
    assert str(error.value) == message
