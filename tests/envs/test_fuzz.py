"""Random legal and illegal steps over the tasks of the suites, without an exception.

`SCHEDENV_FUZZ_STEPS=1000000 pytest -m slow tests/envs/test_fuzz.py` takes a million of them.
"""

import math
import os
from typing import Any

import gymnasium
import numpy as np
import pytest

from schedenv.envs.episode import replay
from schedenv.space import Point
from schedenv.tasks import members, suite_names

EVERY_TASK = [member for suite in suite_names() for member in members(suite)]
CHEAP = ["odd/gmm-0", "core/dep-2"]
CHECKS = 20
"""Full checks of a state, spread over a task's steps."""
TWIN_STEPS = 6
STEPS = int(os.environ.get("SCHEDENV_FUZZ_STEPS", "50000"))
"""Over all tasks and both ids."""


def fuzz(env_id: str, task: str, steps: int, model: str, seed: int) -> None:
    """Random actions, a part of them drawn from the legal ones; now and then a full check."""
    env: Any = gymnasium.make(env_id, task=task, reward="predicted", model=model).unwrapped
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    again = env.fork()
    every = max(1, steps // CHECKS)
    # Masks of `Edit-v0` take longer than steps.
    legal_share = 0.5 if env_id.endswith("Build-v0") else 0.1
    replayed = 0
    for number in range(steps):
        checked = number % every == 0
        action = int(rng.integers(env.action_space.n))
        if checked or rng.random() < legal_share:
            mask = env.action_masks()
            if not checked or rng.random() < 0.5:
                action = int(rng.choice(np.flatnonzero(mask)))
        if checked:
            check_mask(env, mask)
            check_twin(env, np.random.default_rng((seed, number)))
        observation, reward, terminated, truncated, info = env.step(action)
        assert math.isfinite(reward)
        if checked:
            assert mask[action] == (not info["illegal"])
            assert env.observation_space.contains(observation)
            if info["point"] is not None:
                assert env._problem.space.is_legal(Point.parse(info["point"]))
        if terminated or truncated:
            if number >= replayed * every:
                replayed += 1
                assert replay(env.state(), again).valid
            env.reset()
    assert replayed or steps < env._max_steps
    again.close()
    env.close()


def check_mask(env: Any, mask: np.ndarray) -> None:
    """Legal actions of `Edit-v0` are moves that the space has, and lead to different points."""
    if not env._id.endswith("Edit-v0"):
        return
    space, point = env._problem.space, env._standing.point
    moves = [env._actions.move(space, point, action) for action in np.flatnonzero(mask[1:]) + 1]
    reached = [move.apply(point) for move in moves]
    assert set(reached) <= set(space.neighbours(point))
    assert point not in reached


def check_twin(env: Any, rng: np.random.Generator) -> None:
    """Two forks that take the same actions see and earn the same, and leave their parent alone."""
    before = env.state()
    twins = [env.fork(), env.fork()]
    for _ in range(TWIN_STEPS):
        masks = [twin.action_masks() for twin in twins]
        np.testing.assert_array_equal(*masks)
        action = int(rng.integers(env.action_space.n))
        if rng.random() < 0.5:
            action = int(rng.choice(np.flatnonzero(masks[0])))
        one, other = (twin.step(action) for twin in twins)
        for key, value in one[0].items():
            np.testing.assert_array_equal(other[0][key], value)
        assert other[1:] == one[1:]
        if one[2] or one[3]:
            break
    for twin in twins:
        twin.close()
    assert env.state() == before


@pytest.mark.parametrize("env_id", ["schedenv/Edit-v0", "schedenv/Build-v0"])
@pytest.mark.parametrize("task", CHEAP)
def test_random_steps_never_fail(env_id: str, task: str, model: str, linear_models: None) -> None:
    fuzz(env_id, task, 200, model, seed=7)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["schedenv/Edit-v0", "schedenv/Build-v0"])
@pytest.mark.parametrize("task", EVERY_TASK)
def test_random_steps_never_fail_on_any_task_of_a_suite(
    env_id: str, task: str, model: str, linear_models: None
) -> None:
    fuzz(env_id, task, 1 + STEPS // (2 * len(EVERY_TASK)), model, seed=11)
