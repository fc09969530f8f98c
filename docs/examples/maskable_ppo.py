"""MaskablePPO (sb3-contrib) on recorded tables: exact rewards, no compiler, no noise.

    pip install 'schedenv[train,tables]'
    python docs/examples/maskable_ppo.py gmm dep --steps 200000

Give it names of shipped tables, or files that `schedenv record` wrote. One policy is trained on all
of them: every episode draws a table, and the spaces have one size for all. `schedenv train` does
the same with checkpoints, held-out tables and normalised inputs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecMonitor

from schedenv.envs.sb3 import EditVecEnv
from schedenv.envs.vector import EditVectorEnv
from schedenv.training import roll_out


class Sb3Policy:
    """An SB3 model as `roll_out` wants it."""

    def __init__(self, model: MaskablePPO) -> None:
        self._model = model

    def act(self, observations, masks, rng=None):
        """The most likely legal actions."""
        del rng
        return self._model.predict(observations, action_masks=masks, deterministic=True)[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, then say what the policy reaches on every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", help="recorded tables: files or shipped names")
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--envs", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)

    def make(count: int) -> EditVectorEnv:
        return EditVectorEnv(
            count, reward="recorded", table=chosen.tables, autoreset_mode="same_step"
        )

    torch.set_num_threads(1)  # the networks are too small to share
    model = MaskablePPO(
        "MultiInputPolicy",
        VecMonitor(EditVecEnv(make(chosen.envs))),
        n_steps=32,
        batch_size=min(2048, 32 * chosen.envs),
        n_epochs=3,
        learning_rate=1e-3,
        ent_coef=0.01,
        policy_kwargs={"net_arch": [128, 128]},
        seed=chosen.seed,
        device="cpu",
    )
    model.learn(chosen.steps)
    returns = [episode["r"] for episode in model.ep_info_buffer or ()]
    print(f"{model.num_timesteps} steps; mean return of the last episodes {np.mean(returns):.2f}")

    envs = make(100)
    for task in envs.task_names:
        rollout = roll_out(Sb3Policy(model), envs, task, seed=12345)
        print(
            f"{task}: {rollout.share(8):.1%} of the known optimum's speed within 8 steps, "
            f"{rollout.share():.1%} within an episode, mean of 100 starts"
        )


if __name__ == "__main__":
    main()
