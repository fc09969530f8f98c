"""Episodes played with a policy, and what they reached."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from schedenv.envs.actions import STOP
from schedenv.envs.vector import EditVectorEnv
from schedenv.errors import InputError
from schedenv.training.policy import Policy

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rollout:
    """What episodes of one task reached; one column an episode.

    Attributes:
        task: Its name.
        best: The best speed-up over the untuned program until each step, the start included,
            shape (longest episode + 1, n); constant after an episode's end.
        last: The speed-up of the point where the episode ended, shape (n,).
        steps: How many steps it had, shape (n,).
        failure_rate: Candidates that failed, as a share of those tried; the starts do not count.
        optimum: The known optimum's speed-up; None if it is not known.
    """

    task: str
    best: Doubles
    last: Doubles
    steps: npt.NDArray[np.int64]
    failure_rate: float
    optimum: float | None

    @property
    def geomean_speedup(self) -> float:
        """Geometric mean over the episodes of the best speed-up."""
        return float(np.exp(np.log(self.best[-1]).mean()))

    def share(self, steps: int | None = None) -> float | None:
        """Mean over the episodes of the best speed-up as a share of the known optimum's.

        Args:
            steps: Within so many steps; None for whole episodes.
        """
        if self.optimum is None:
            return None
        reached = self.best[-1 if steps is None else min(steps, len(self.best) - 1)]
        return float(reached.mean() / self.optimum)

    @property
    def final_share(self) -> float | None:
        """The same of the points where the episodes ended."""
        return None if self.optimum is None else float(self.last.mean() / self.optimum)


def roll_out(
    policy: Policy,
    envs: EditVectorEnv,
    task: str | None = None,
    *,
    seed: int = 0,
    rng: np.random.Generator | None = None,
    may_stop: bool = True,
) -> Rollout:
    """Play one episode in every environment, from random starts.

    Args:
        policy: Who acts.
        envs: In same-step mode.
        task: What `envs.task_names` calls it; None for its first one.
        seed: Of the starts; equal seeds give equal starts to all policies.
        rng: Draws actions from the policy's distribution; None takes the most likely ones.
        may_stop: Whether the policy may end the episode; if not, STOP is masked unless nothing
            else is legal.

    Raises:
        InputError: The autoreset mode is another one.
        UnknownNameError: The environments have no such task.
    """
    if envs.metadata["autoreset_mode"] is not AutoresetMode.SAME_STEP:
        raise InputError(
            "expected environments with autoreset_mode='same_step', got "
            f"{envs.metadata['autoreset_mode'].name.lower()!r}"
        )
    name = envs.task_names[0] if task is None else task
    observation, info = envs.reset(seed=seed, options={"task": name})
    running = np.ones(envs.num_envs, np.bool_)
    best, last = [info["speedup"]], info["speedup"].copy()
    steps = np.zeros(envs.num_envs, np.int64)
    tried = failed = 0
    optimum = None
    if info["_optimum_fraction"][0]:
        optimum = float(info["speedup"][0] / info["optimum_fraction"][0])
    while running.any():
        masks = envs.action_masks()
        if not may_stop:
            masks[:, STOP] = ~masks[:, STOP + 1 :].any(axis=1)
        actions = policy.act(observation, masks, rng)
        observation, _, terminated, truncated, info = envs.step(actions)
        over = running & (terminated | truncated)
        news = {key: info[key].copy() for key in ("speedup", "status", "illegal")}
        if over.any():
            for key, values in news.items():
                values[over] = info["final_info"][key][over]
        last[running] = news["speedup"][running]
        best.append(np.where(running, np.maximum(best[-1], last), best[-1]))
        moved = running & (actions != STOP) & ~news["illegal"]
        tried += int(np.count_nonzero(moved))
        failed += int(np.count_nonzero(moved & (news["status"] != "ok")))
        steps += running
        running = running & ~over
    return Rollout(name, np.array(best), last, steps, failed / max(1, tried), optimum)
