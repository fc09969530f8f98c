"""Stable-Baselines3's DQN on one environment, without masks.

    pip install 'schedenv[train,tables]'
    python docs/examples/dqn.py dep --steps 50000

DQN knows no masks. It needs none: an illegal action does nothing and costs 0.1, and is told as
`info["illegal"]`. But of 319 actions some ten are legal at a point, so most of what it tries first
teaches it only that; with masks (`maskable_ppo.py`, `cleanrl_ppo.py`) the same steps go further.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import gymnasium
import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.monitor import Monitor

import schedenv  # noqa: F401 - registers the environments


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, then say what the greedy policy reaches, and how often it is illegal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", help="recorded tables: files or shipped names")
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)

    def make() -> gymnasium.Env:
        return Monitor(gymnasium.make("schedenv/Edit-v0", reward="recorded", table=chosen.tables))

    torch.set_num_threads(1)
    model = DQN(
        "MultiInputPolicy",
        make(),
        learning_starts=min(1000, chosen.steps // 4),
        buffer_size=min(100_000, chosen.steps),
        batch_size=128,
        train_freq=8,
        gradient_steps=2,
        target_update_interval=500,
        exploration_fraction=0.5,
        policy_kwargs={"net_arch": [128, 128]},
        seed=chosen.seed,
        device="cpu",
    )
    model.learn(chosen.steps)

    env = make()
    for task in env.unwrapped.task_names:
        reached, illegal = [], []
        for seed in range(20):
            observation, info = env.reset(seed=seed, options={"task": task})
            over = False
            while not over:
                action, _ = model.predict(observation, deterministic=True)
                observation, _, terminated, truncated, info = env.step(int(action))
                illegal.append(info["illegal"])
                over = terminated or truncated
            reached.append(info["optimum_fraction"])
        print(
            f"{task}: {np.mean(reached):.1%} of the known optimum's speed, mean of 20 episodes; "
            f"{np.mean(illegal):.0%} of the actions illegal"
        )


if __name__ == "__main__":
    main()
