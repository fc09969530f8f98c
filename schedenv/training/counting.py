"""A vector environment that counts what TensorBoard shows of an environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from schedenv.envs.actions import STOP
from schedenv.envs.observations import Observation
from schedenv.envs.vector import EditVectorEnv
from schedenv.envs.vector_episodes import Info
from schedenv.envs.vector_source import Doubles
from schedenv.space.batch import Bools


class CountingEnvs(EditVectorEnv):
    """`EditVectorEnv` in same-step mode that keeps statistics of the episodes that end.

    Args:
        num_envs: How many environments.
        **arguments: As for `EditVectorEnv`, but for the autoreset mode.
    """

    def __init__(self, num_envs: int, **arguments: Any) -> None:
        super().__init__(num_envs, autoreset_mode="same_step", **arguments)
        self._best = np.zeros(num_envs)
        self._forget()

    def reset(self, **arguments: Any) -> tuple[Observation, Info]:
        """As `EditVectorEnv.reset`; episodes that are cut off do not count."""
        observation, info = super().reset(**arguments)
        started = info["_speedup"]
        self._best[started] = info["speedup"][started]
        return observation, info

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Observation, Doubles, Bools, Bools, Info]:
        """As `EditVectorEnv.step`."""
        observation, rewards, terminated, truncated, info = super().step(actions)
        over = terminated | truncated
        news = {key: info[key].copy() for key in ("speedup", "status", "illegal")}
        if over.any():
            for key, values in news.items():
                values[over] = info["final_info"][key][over]
        self._illegal += int(np.count_nonzero(news["illegal"]))
        moved = (actions != STOP) & ~news["illegal"]
        self._tried += int(np.count_nonzero(moved))
        self._failed += int(np.count_nonzero(moved & (news["status"] != "ok")))
        self._steps += self.num_envs
        self._best = np.maximum(self._best, news["speedup"])
        if over.any():
            final = info["final_info"]
            self._speedups += self._best[over].tolist()
            known = over & final["_optimum_fraction"]
            self._shares += final["optimum_fraction"][known].tolist()
            self._best[over] = info["speedup"][over]
        return observation, rewards, terminated, truncated, info

    def drain(self) -> dict[str, float]:
        """What happened since the last call, as scalars; those that are not known are left out.

        Returns:
            `env/failure_rate` (of the candidates tried), `env/illegal_rate` (of the actions), and
            of the episodes that ended `env/geomean_speedup` (of each one's best point over the
            untuned program), `env/share_of_optimum` and `env/episode_steps`.
        """
        scalars = {
            "env/failure_rate": self._failed / max(1, self._tried),
            "env/illegal_rate": self._illegal / max(1, self._steps),
        }
        if self._speedups:
            scalars["env/geomean_speedup"] = float(np.exp(np.log(self._speedups).mean()))
            scalars["env/episode_steps"] = self._steps / len(self._speedups)
        if self._shares:
            scalars["env/share_of_optimum"] = float(np.mean(self._shares))
        self._forget()
        return scalars

    def _forget(self) -> None:
        self._steps = self._tried = self._failed = self._illegal = 0
        self._speedups: list[float] = []
        self._shares: list[float] = []
