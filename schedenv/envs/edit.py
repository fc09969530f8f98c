"""`schedenv/Edit-v0`: edit a complete schedule, one knob at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from schedenv.envs import MAX_STEPS, rewards
from schedenv.envs.actions import STOP, EditActions
from schedenv.envs.observations import KnobObservation, Observation
from schedenv.envs.pieces import STORES, chosen_pieces, keys_of
from schedenv.envs.schedule_env import ScheduleEnv
from schedenv.envs.schemes import make_scheme
from schedenv.envs.store_observation import StoreObservation
from schedenv.errors import MachineError
from schedenv.measure import Result
from schedenv.space import Point, SearchSpace

_START_ATTEMPTS = 20
_MASK_CACHE = 1 << 13


class EditEnv(ScheduleEnv):
    """HARL's formulation: start at a legal point, each action changes one knob or the sketch.

    Observation: a flat Dict of the pieces that `observation` names, see `schedenv.envs.pieces`; by
    default those of `schedenv.envs.observations.KnobObservation`. Action: one Discrete, see
    `schedenv.envs.actions.EditActions`; `action_masks()` says which are legal. STOP (0) always is
    and ends the episode. `info` and the arguments that are not named here: see
    `schedenv.envs.schedule_env.ScheduleEnv`.

    Reward: by default the log speed-up of the step, so that an episode's return is the log
    speed-up over its first point. An illegal action does nothing and costs 0.1. A move to a
    candidate that fails is undone and costs 1.

    Args:
        task: TASK string, suite, or a list of both.
        reward: `measured`, `recorded` or `predicted`.
        table: Recorded table or tables.
        model: Folder of a saved cost model.
        max_steps: Steps after which an episode is truncated.
        layout: Sizes of the spaces.
        render_mode: `ansi`, `rgb_array` or None.
        scheme: What steps pay: `log_ratio`, `relative`, `terminal` or `shaped`, see
            `schedenv.envs.schemes`.
        discount: The learner's, for `shaped`.
        observation: Pieces of the observation, see `schedenv.envs.pieces`; None for the default.

    Raises:
        InputError: An argument cannot be used.

    Example:
        >>> import gymnasium, schedenv
        >>> env = gymnasium.make("schedenv/Edit-v0", task="gmm:1x128x128x128", reward="measured")
        >>> env.action_space
        Discrete(319)
        >>> {name: box.shape for name, box in env.observation_space.items()}
        {'hardware': (3,), 'knob_mask': (57,), 'knobs': (57,), 'progress': (3,), \
'sketch': (12,), 'task': (17,)}
    """

    _id = "schedenv/Edit-v0"

    def __init__(
        self,
        task: str | Sequence[str] | None = None,
        reward: str = "measured",
        table: str | Sequence[str] | None = None,
        model: str | None = None,
        max_steps: int = MAX_STEPS,
        layout: dict[str, int] | None = None,
        render_mode: str | None = None,
        scheme: str = "log_ratio",
        discount: float = 0.99,
        observation: str | Sequence[str] | None = None,
    ) -> None:
        self._scheme = make_scheme(scheme, discount)
        pieces = chosen_pieces(observation)
        super().__init__(task, reward, table, model, max_steps, layout, render_mode)
        self._arguments |= {"scheme": scheme, "discount": discount}
        if observation is not None:
            self._arguments["observation"] = list(pieces)
        self._actions = EditActions(self._layout)
        self._observe = KnobObservation(self._layout)
        self.action_space = self._actions.space
        self._keys = keys_of(pieces)
        self._stores = StoreObservation(self._layout) if STORES in pieces else None
        boxes = {**self._observe.space.spaces, **(self._stores.space if self._stores else {})}
        self.observation_space = spaces.Dict(  # type: ignore[assignment]
            {key: boxes[key] for key in self._keys}
        )
        self._mask = lru_cache(_MASK_CACHE)(self._find_mask)
        self._standing: Result | None = None

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which actions are legal now, shape (n,).

        Raises:
            gymnasium.error.ResetNeeded: There was no reset.
        """
        if self._standing is None:
            raise gym.error.ResetNeeded("call reset before action_masks")
        return self._mask(self._problem.name, self._standing.point).copy()

    @property
    def point(self) -> Point:
        """The point that the agent stands on.

        Raises:
            gymnasium.error.ResetNeeded: There was no reset.
        """
        if self._standing is None:
            raise gym.error.ResetNeeded("call reset before point")
        return self._standing.point

    @property
    def search_space(self) -> SearchSpace:
        """The points of the episode's task."""
        return self._problem.space

    def _begin(self, named: str | None) -> None:
        """Start at a random point that works, or at the one named."""
        space = self._problem.space
        candidates = (
            [self._legal(Point.parse(named))]
            if named is not None
            else (space.sample(self.np_random) for _ in range(_START_ATTEMPTS))
        )
        tried = []
        for point in candidates:
            result = self._evaluate(point)
            tried.append(result)
            if result.ok:
                self._standing = result
                return
        raise MachineError(
            f"none of {len(tried)} starting points of {self._problem.task.name} works; the last: "
            f"{tried[-1].status.value}, {tried[-1].reason}. Run: schedenv doctor"
        )

    def _act(self, action: int) -> tuple[float, bool, Result | None]:
        assert self._standing is not None
        before_s = self._latency_s
        move = self._actions.move(self._problem.space, self._standing.point, action)
        self._was_illegal = action != STOP and move is None
        result, penalty = None, 0.0
        if move is not None:
            result = self._evaluate(move.apply(self._standing.point))
            if result.ok:
                self._standing = result
            else:
                penalty = rewards.FAILURE_REWARD
        elif action != STOP:
            penalty = rewards.ILLEGAL_REWARD
        baseline_s = self._problem.source.baseline_s()
        paid = self._scheme.step(before_s, self._latency_s, baseline_s)
        return float(paid) + penalty, action == STOP, result

    def _final_reward(self, terminated: bool) -> float:
        del terminated
        return float(self._scheme.end(self._latency_s, self._problem.source.baseline_s()))

    def _observation(self) -> Observation:
        assert self._standing is not None
        problem = self._problem
        seen = self._observe.build(
            problem.task,
            problem.space,
            problem.hardware,
            self._standing.point,
            self._left,
            self._speedups(),
        )
        if self._stores is not None:
            seen |= self._stores.build(problem, self._standing.point)
        return {key: seen[key] for key in self._keys}

    def _here(self) -> Result | None:
        return self._standing

    def _text(self) -> str:
        assert self._standing is not None
        problem, best_s = self._problem, self._best_s or self._latency_s
        if problem.is_absolute:
            speed = f"{self._latency_s * 1e6:.1f} us (best {best_s * 1e6:.1f} us)"
        else:
            speed = f"{1 / self._latency_s:.2f} times the plainest point's speed, predicted"
        return f"{problem.task.name}: {speed}\n{problem.space.describe(self._standing.point)}"

    @property
    def _latency_s(self) -> float:
        assert self._standing is not None
        assert self._standing.estimate_s is not None
        return self._standing.estimate_s

    def _find_mask(self, name: str, point: Point) -> npt.NDArray[np.bool_]:
        return self._actions.mask(self._problems.get(self._problems.find(name)).space, point)
