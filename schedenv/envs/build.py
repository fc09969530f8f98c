"""`schedenv/Build-v0`: make a schedule from nothing, one decision a step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from schedenv.envs import MAX_BUILD_STEPS, rewards
from schedenv.envs.build_actions import BuildActions, Options, Partial, make_options
from schedenv.envs.build_observations import BuildObservation
from schedenv.envs.observations import Observation
from schedenv.envs.schedule_env import ScheduleEnv
from schedenv.errors import InputError
from schedenv.measure import Result
from schedenv.space import Point, SearchSpace


class BuildEnv(ScheduleEnv):
    """Choose the sketch, then each knob in turn; the reward comes when the schedule is complete.

    Observation: see `schedenv.envs.build_observations.BuildObservation`. Action: one Discrete, see
    `schedenv.envs.build_actions.BuildActions`; `action_masks()` says which are legal. `info` and
    the arguments: see `schedenv.envs.schedule_env.ScheduleEnv`.

    Reward: 0 for every decision but the last, which pays the log speed-up over the untuned
    program, or -1 for a candidate that fails. An illegal action does nothing and costs 0.1.

    Args:
        task: TASK string, suite, or a list of both.
        reward: `measured`, `recorded` or `predicted`.
        table: Recorded table or tables.
        model: Folder of a saved cost model.
        max_steps: Steps after which an episode is truncated; a schedule has fewer decisions, so
            only illegal actions lead there.
        layout: Sizes of the spaces.
        render_mode: `ansi`, `rgb_array` or None.

    Raises:
        InputError: An argument cannot be used.

    Example:
        >>> import gymnasium, schedenv
        >>> env = gymnasium.make("schedenv/Build-v0", task="gmm:1x128x128x128", reward="measured")
        >>> env.action_space
        Discrete(124)
        >>> env.observation_space["decision"].shape
        (58,)
    """

    _id = "schedenv/Build-v0"

    def __init__(
        self,
        task: str | Sequence[str] | None = None,
        reward: str = "measured",
        table: str | Sequence[str] | None = None,
        model: str | None = None,
        max_steps: int = MAX_BUILD_STEPS,
        layout: dict[str, int] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self._options: dict[str, Options] = {}
        super().__init__(task, reward, table, model, max_steps, layout, render_mode)
        self._actions = BuildActions(self._layout)
        self._observe = BuildObservation(self._layout)
        self.action_space = self._actions.space
        self.observation_space = self._observe.space  # type: ignore[assignment]
        self._partial = Partial()
        self._final: Result | None = None

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which actions are legal now, shape (n,); none once the schedule is complete.

        Raises:
            gymnasium.error.ResetNeeded: There was no reset.
        """
        if not self._started:
            raise gym.error.ResetNeeded("call reset before action_masks")
        if self._choices.is_complete(self._partial):
            return np.zeros(int(self._actions.space.n), np.bool_)
        return self._actions.mask(self._choices, self._partial)

    def _check_space(self, space: SearchSpace, name: str) -> None:
        super()._check_space(space, name)
        BuildActions(self._layout).check(space, name)

    @property
    def _choices(self) -> Options:
        """The options of the task."""
        name = self._problem.name
        if name not in self._options:
            self._options[name] = make_options(self._problem.space)
        return self._options[name]

    def _begin(self, named: str | None) -> None:
        """Start with nothing decided."""
        if named is not None:
            raise InputError(
                "Build-v0 starts with nothing decided and takes no option 'point'; use Edit-v0 to "
                "start at a point"
            )
        self._partial, self._final = Partial(), None

    def _act(self, action: int) -> tuple[float, bool, Result | None]:
        decided = self._actions.decide(self._choices, self._partial, action)
        self._was_illegal = decided is None
        if decided is None:
            return rewards.ILLEGAL_REWARD, False, None
        self._partial = decided
        if not self._choices.is_complete(decided):
            return 0.0, False, None
        result = self._evaluate(self._choices.point(decided))
        if result.estimate_s is None:
            return rewards.FAILURE_REWARD, True, result
        self._final = result
        return math.log(self._problem.source.baseline_s() / result.estimate_s), True, result

    def _final_reward(self, terminated: bool) -> float:
        """Nothing: the last decision has paid, and a truncated schedule is worth nothing."""
        del terminated
        return 0.0

    def _observation(self) -> Observation:
        problem = self._problem
        return self._observe.build(
            problem.task,
            problem.hardware,
            self._choices,
            self._partial,
            self._left,
            self._speedups(),
        )

    def _here(self) -> Result | None:
        return self._final

    def _text(self) -> str:
        """The decisions, and what the schedule takes once it is complete."""
        problem, partial = self._problem, self._partial
        if partial.sketch is None:
            return f"{problem.task.name}: nothing is decided; next: the sketch"
        order = self._choices.order(partial.sketch)
        state = f"{partial.decided} of {len(order)} values decided"
        if self._final is not None and self._final.estimate_s and problem.is_absolute:
            state = f"{self._final.estimate_s * 1e6:.1f} us"
        described = problem.space.describe(Point(partial.sketch, partial.values)).splitlines()
        decided = set(order[: partial.decided])
        lines = [f"{problem.task.name}: {state}", described[0]]
        for knob, line in zip(
            problem.space.sketches[partial.sketch].knobs, described[1:], strict=True
        ):
            slots = range(knob.start, knob.start + knob.width)
            open_slots = [slot for slot in slots if slot not in decided]
            if open_slots:
                values = [str(partial.values[s]) if s in decided else "?" for s in slots]
                line = f"  {knob.name:<24} {' x '.join(values)}"  # noqa: PLW2901
            lines.append(line)
        return "\n".join(lines)
