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
CHEAP = ["odd/gmm-0", "core/gmm-0", "core/dep-2", "core/tbg-0"]
CHECKS = 20
"""Full checks of an episode, spread over a task's steps."""
STEPS = int(os.environ.get("SCHEDENV_FUZZ_STEPS", "50000"))
"""Over all tasks and both ids."""


def fuzz(env_id: str, task: str, steps: int, model: str, seed: int) -> None:
    """Half of the steps are legal; now and then an episode is checked against the space."""
    env: Any = gymnasium.make(env_id, task=task, reward="predicted", model=model).unwrapped
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    fork = env.fork()
    every = max(1, steps // CHECKS)
    for number in range(steps):
        checked = number % every == 0
        action = int(rng.integers(env.action_space.n))
        if checked or (env_id.endswith("Build-v0") and rng.random() < 0.5):
            mask = env.action_masks()
            if rng.random() < 0.5:
                action = int(rng.choice(np.flatnonzero(mask)))
        observation, reward, terminated, truncated, info = env.step(action)
        assert math.isfinite(reward)
        if checked:
            assert mask[action] == (not info["illegal"])
            assert env.observation_space.contains(observation)
            if info["point"] is not None:
                assert env._problem.space.is_legal(Point.parse(info["point"]))
        if terminated or truncated:
            if checked or number % every < 40:
                assert replay(env.state(), fork).valid
            env.reset()
    fork.close()
    env.close()


@pytest.mark.parametrize("env_id", ["schedenv/Edit-v0", "schedenv/Build-v0"])
@pytest.mark.parametrize("task", CHEAP)
def test_random_steps_never_fail(env_id: str, task: str, model: str, linear_models: None) -> None:
    fuzz(env_id, task, 500, model, seed=7)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["schedenv/Edit-v0", "schedenv/Build-v0"])
@pytest.mark.parametrize("task", EVERY_TASK)
def test_random_steps_never_fail_on_any_task_of_a_suite(
    env_id: str, task: str, model: str, linear_models: None
) -> None:
    fuzz(env_id, task, 1 + STEPS // (2 * len(EVERY_TASK)), model, seed=11)
