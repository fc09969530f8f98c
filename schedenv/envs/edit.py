"""`schedenv/Edit-v0`: edit a complete schedule, one knob at a time."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from schedenv import hardware as hw
from schedenv.envs import MAX_STEPS, rewards
from schedenv.envs.actions import STOP, EditActions
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation, Observation
from schedenv.errors import IllegalPointError, InputError, MachineError
from schedenv.measure import Result, Status
from schedenv.space import Point, Space
from schedenv.tasks import resolve

_START_ATTEMPTS = 20


class EditEnv(gym.Env[Observation, np.int64]):
    """HARL's formulation: start at a legal point, each action changes one knob or the sketch.

    Observation: see `schedenv.envs.observations.KnobObservation`. Action: one Discrete, see
    `schedenv.envs.actions.EditActions`; `action_masks()` says which are legal. STOP (0) always is
    and ends the episode.

    Reward: the log speed-up of the step, so that an episode's return is the log speed-up over its
    first point. An illegal action does nothing and costs 0.1. A move to a candidate that fails is
    undone and costs 1.

    `info` has the keys `status`, `latency_us`, `speedup` (over the untuned program),
    `gflops_per_s`, `best_us`, `point`, `trials` (candidates evaluated so far by this environment)
    and `illegal`. Latency, speed-up and rate are those of the point that the agent stands on.

    Args:
        task: TASK string, as on the command line.
        reward: Where rewards come from: `measured` (this machine).
        max_steps: Steps that `progress` in the observation counts down; the registered
            environment truncates there.
        layout: Sizes of the spaces that differ from the default, such as `{"tiles": 16}`.
        render_mode: `ansi` for the schedule as text, or None.

    Raises:
        InputError: The task, the reward source or the layout cannot be used.

    Example:
        >>> import gymnasium, schedenv
        >>> env = gymnasium.make("schedenv/Edit-v0", task="gmm:1x128x128x128", reward="measured")
        >>> env.action_space
        Discrete(319)
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 - Gymnasium's convention

    def __init__(
        self,
        task: str,
        reward: str = "measured",
        max_steps: int = MAX_STEPS,
        layout: dict[str, int] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self._task = resolve(task)
        self._hardware = hw.detect()
        self._points = Space(self._task.mod, self._hardware)
        self._max_steps = max_steps
        if max_steps < 1:
            raise InputError(f"expected max_steps of at least 1, got {max_steps}")
        sizes = Layout.of(layout or {})
        sizes.check(self._points, self._task.name)
        self._actions = EditActions(sizes)
        self._observe = KnobObservation(sizes)
        self._source = rewards.make_source(reward, self._task, self._hardware)
        self.action_space = self._actions.space
        self.observation_space = self._observe.space  # type: ignore[assignment]
        self._here: Result | None = None
        self._best_s: float | None = None
        self._steps = 0
        self._trials = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start at a random point that works; `options={"point": "0:1,..."}` names one.

        Raises:
            IllegalPointError: The point named is malformed or not of this space.
            MachineError: No working point was found.
        """
        super().reset(seed=seed)
        self._steps = 0
        self._best_s = None
        named = (options or {}).get("point")
        candidates = (
            [self._legal(Point.parse(named))]
            if named is not None
            else (self._points.sample(self.np_random) for _ in range(_START_ATTEMPTS))
        )
        tried = []
        for point in candidates:
            result = self._evaluate(point)
            tried.append(result)
            if result.ok:
                self._here = result
                return self._observation(), self._info(Status.OK, illegal=False)
        raise MachineError(
            f"none of {len(tried)} starting points of {self._task.name} works; the last: "
            f"{tried[-1].status.value}, {tried[-1].reason}. Run: schedenv doctor"
        )

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply one action; see the class for what it pays.

        Raises:
            gymnasium.error.InvalidAction: The number is not in the action space.
            gymnasium.error.ResetNeeded: There was no reset.
        """
        if self._here is None:
            raise gym.error.ResetNeeded("call reset before step")
        if not 0 <= action < int(self._actions.space.n):
            raise gym.error.InvalidAction(
                f"expected an action from 0 to {int(self._actions.space.n) - 1}, got {action}"
            )
        self._steps += 1
        if action == STOP:
            return self._observation(), 0.0, True, False, self._info(Status.OK, illegal=False)
        move = self._actions.move(self._points, self._here.point, int(action))
        if move is None:
            info = self._info(Status.OK, illegal=True)
            return self._observation(), rewards.ILLEGAL_REWARD, False, False, info
        before_s = self._latency_s
        result = self._evaluate(move.apply(self._here.point))
        if result.ok:
            self._here = result
            reward = rewards.step_reward(before_s, self._latency_s)
        else:
            reward = rewards.FAILURE_REWARD
        return self._observation(), reward, False, False, self._info(result.status, illegal=False)

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which actions are legal now, shape (n,); the name is the one sb3-contrib looks for."""
        if self._here is None:
            raise gym.error.ResetNeeded("call reset before action_masks")
        return self._actions.mask(self._points, self._here.point)

    def render(self) -> str | None:
        """The schedule as text, for render mode `ansi`."""
        if self.render_mode != "ansi" or self._here is None:
            return None
        return (
            f"{self._task.name}: {self._latency_s * 1e6:.1f} us "
            f"(best {(self._best_s or 0.0) * 1e6:.1f} us)\n"
            f"{self._points.describe(self._here.point)}"
        )

    def close(self) -> None:
        """Stop the measurement workers."""
        self._source.close()

    def _legal(self, point: Point) -> Point:
        reason = self._points.explain_illegal(point)
        if reason is not None:
            raise IllegalPointError(f"{point} is not a point of {self._task.name}: {reason}")
        return point

    @property
    def _latency_s(self) -> float:
        assert self._here is not None
        assert self._here.estimate_s is not None
        return self._here.estimate_s

    def _evaluate(self, point: Point) -> Result:
        self._source.baseline_s()
        # No incumbent: a step's reward needs the latency of slow points too.
        result = self._source.evaluate(point, None)
        self._trials += 1
        if result.estimate_s is not None:
            self._best_s = min(self._best_s or result.estimate_s, result.estimate_s)
        return result

    def _observation(self) -> Observation:
        assert self._here is not None
        baseline_s = self._source.baseline_s()
        speedups = (baseline_s / self._latency_s, baseline_s / (self._best_s or self._latency_s))
        left = max(0.0, 1.0 - self._steps / self._max_steps)
        return self._observe.build(
            self._task, self._points, self._hardware, self._here.point, left, speedups
        )

    def _info(self, status: Status, *, illegal: bool) -> dict[str, Any]:
        assert self._here is not None
        return {
            "status": status.value,
            "latency_us": self._latency_s * 1e6,
            "speedup": self._source.baseline_s() / self._latency_s,
            "gflops_per_s": self._task.flops / self._latency_s / 1e9,
            "best_us": (self._best_s or self._latency_s) * 1e6,
            "point": str(self._here.point),
            "trials": self._trials,
            "illegal": illegal,
        }
