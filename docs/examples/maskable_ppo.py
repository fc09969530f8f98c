"""MaskablePPO (sb3-contrib) on recorded tables: exact rewards, no compiler, no noise.

    pip install 'schedenv[train,tables]'
    python docs/examples/maskable_ppo.py gmm.parquet --steps 50000

Give it tables that `schedenv record` wrote, or names of shipped ones. One policy is trained on all
of them: every episode draws a table, and the spaces have one size for all.
"""

from __future__ import annotations

import argparse

import gymnasium
import numpy as np
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.env_util import make_vec_env

import schedenv  # noqa: F401 - registers the environments


def main() -> None:
    """Train, then say what the policy reaches on every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", help="recorded tables: files or shipped names")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    settings = {"reward": "recorded", "table": arguments.tables}
    envs = make_vec_env("schedenv/Edit-v0", n_envs=8, seed=arguments.seed, env_kwargs=settings)
    model = MaskablePPO("MultiInputPolicy", envs, n_steps=256, batch_size=256, seed=arguments.seed)
    model.learn(arguments.steps)

    env = gymnasium.make("schedenv/Edit-v0", **settings)
    for task in env.unwrapped.task_names:
        reached = []
        for seed in range(10):
            observation, info = env.reset(seed=seed, options={"task": task})
            over = False
            while not over:
                action, _ = model.predict(observation, action_masks=get_action_masks(env))
                observation, _, terminated, truncated, info = env.step(action)
                over = terminated or truncated
            reached.append(info["optimum_fraction"])
        print(f"{task}: {np.mean(reached):.1%} of the known optimum, mean of 10 episodes")


if __name__ == "__main__":
    main()
