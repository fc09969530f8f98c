"""How good a policy is on the tasks that it learned, and on those that were held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from schedenv.envs.vector import EditVectorEnv
from schedenv.training.policy import Policy
from schedenv.training.rollout import Rollout, roll_out
from schedenv.training.sources import Sources

EPISODES = 64
SEED = 20_260_101
"""Of the starts; not the training's, and the same in every evaluation."""


class Evaluator:
    """Plays the greedy policy from the same starts every time.

    Args:
        sources: What was learned, and what was held out.
        max_steps: Steps of an episode.
        episodes: How many on every task.
    """

    def __init__(self, sources: Sources, max_steps: int, episodes: int = EPISODES) -> None:
        shared: dict[str, Any] = {"max_steps": max_steps, "autoreset_mode": "same_step"}
        self._groups = {"evaluated": EditVectorEnv(episodes, **sources.arguments(), **shared)}
        if sources.held_out:
            held_out = sources.arguments(held_out=True)
            self._groups["held_out"] = EditVectorEnv(episodes, **held_out, **shared)

    def __call__(self, policy: Policy) -> dict[str, float]:
        """Play and summarise.

        Returns:
            As `scalars` gives them.
        """
        return scalars(
            {
                group: [roll_out(policy, envs, task, seed=SEED) for task in envs.task_names]
                for group, envs in self._groups.items()
            }
        )


def scalars(groups: Mapping[str, Sequence[Rollout]]) -> dict[str, float]:
    """What is logged of an evaluation.

    Args:
        groups: One rollout a task: `evaluated`, what is learned, and perhaps `held_out`.

    Returns:
        `env/evaluated_geomean_speedup`, `env/evaluated_failure_rate` and, where optima are known,
        `env/evaluated_share_of_optimum`; the same with `held_out`; and for every task
        `task/NAME/geomean_speedup` and `task/NAME/share_of_optimum`.
    """
    found: dict[str, float] = {}
    for group, rollouts in groups.items():
        for rollout in rollouts:
            found[f"task/{rollout.task}/geomean_speedup"] = rollout.geomean_speedup
            share = rollout.share()
            if share is not None:
                found[f"task/{rollout.task}/share_of_optimum"] = share
        found |= {f"env/{group}_{name}": value for name, value in summary(rollouts).items()}
    return found


def summary(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Over several tasks, each counting alike."""
    logs = [np.log(rollout.geomean_speedup) for rollout in rollouts]
    found = {
        "geomean_speedup": float(np.exp(np.mean(logs))),
        "failure_rate": float(np.mean([rollout.failure_rate for rollout in rollouts])),
    }
    shares = [share for rollout in rollouts if (share := rollout.share()) is not None]
    if len(shares) == len(rollouts):
        found["share_of_optimum"] = float(np.mean(shares))
    return found
