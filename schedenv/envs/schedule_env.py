"""What all schedenv environments share: tasks, spaces, `info`, rendering, forks and episodes."""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence
from typing import Any, Self, SupportsFloat

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec

from schedenv.envs.episode import Episode, Step, digest
from schedenv.envs.layout import Layout
from schedenv.envs.observations import Observation
from schedenv.envs.problems import Problem, open_problems
from schedenv.errors import IllegalPointError, InputError
from schedenv.measure import Result
from schedenv.space import Point

INFO_KEYS = (
    "task", "status", "reason", "illegal", "point", "latency_us", "speedup", "gflops_per_s",
    "peak_fraction", "best_us", "regret", "optimum_fraction", "trials", "seconds",
)  # fmt: skip
"""The keys of every `info`; see `ScheduleEnv`."""

_RESET_OPTIONS = ("task", "point")


class ScheduleEnv(gym.Env[Observation, np.int64], abc.ABC):
    """Tasks to be reset to, one flat action space, and what is told after every step.

    `info` has the same keys after every reset and step. None stands for what is not known.

    | key | meaning |
    |---|---|
    | `task` | name of the task, as `reset(options={"task": ...})` takes it |
    | `status` | how the last candidate's evaluation ended, `schedenv.measure.Status`; `ok` where nothing was evaluated |
    | `reason` | why it failed, in words; None if it did not |
    | `illegal` | whether the action was illegal, and so did nothing |
    | `point` | text form of the point that the agent stands on; None before `Build-v0` has one |
    | `latency_us` | its latency, microseconds a call; None for predicted rewards |
    | `speedup` | over the untuned program; with predicted rewards over the plainest point |
    | `gflops_per_s` | its rate; None for predicted rewards |
    | `peak_fraction` | its rate over the machine's measured peak; None unless rewards are measured |
    | `best_us` | the episode's best latency so far; None for predicted rewards |
    | `regret` | how much slower that is than the known optimum, as a fraction of the optimum; None unless rewards are recorded |
    | `optimum_fraction` | the optimum's latency over the best one, at most 1; None unless rewards are recorded |
    | `trials` | candidates evaluated in this episode, the starting point included |
    | `seconds` | what evaluating them took, or, recorded, what it took when it was recorded |

    Args:
        task: TASK string, as on the command line, the name of a suite, or a list of both. With
            several tasks, each episode draws one.
        reward: Where rewards come from: `measured` (this machine), `recorded` or `predicted`.
        table: For recorded rewards: the file of a recorded table, the name of a shipped one, or a
            list of them; `task` may then be left out.
        model: For predicted rewards: the folder of a saved cost model.
        max_steps: Steps after which an episode is truncated.
        layout: Sizes of the spaces that differ from the default, such as `{"tiles": 16}`.
        render_mode: `ansi` for the schedule as text, `rgb_array` for a picture of the episode
            (needs matplotlib), or None.

    Raises:
        InputError: An argument cannot be used.

    Example:
        >>> import gymnasium, schedenv
        >>> env = gymnasium.make("schedenv/Edit-v0", reward="recorded", table="gmm")
        >>> _, info = env.reset(seed=0)
        >>> tuple(info) == INFO_KEYS
        True
        >>> info["status"], info["reason"], info["illegal"], info["trials"], info["peak_fraction"]
        ('ok', None, False, 1, None)
        >>> info["latency_us"] == info["best_us"], 0 < info["optimum_fraction"] <= 1
        (True, True)
        >>> _, reward, _, _, info = env.step(318)
        >>> reward, info["illegal"], info["trials"]
        (-0.1, True, 1)
        >>> env.close()
    """  # noqa: E501 - a table's rows are lines

    metadata = {  # noqa: RUF012 - Gymnasium's convention
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": 1,
    }

    def __init__(
        self,
        task: str | Sequence[str] | None,
        reward: str,
        table: str | Sequence[str] | None,
        model: str | None,
        max_steps: int,
        layout: dict[str, int] | None,
        render_mode: str | None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise InputError(
                f"expected render_mode to be one of {self.metadata['render_modes']} or None, "
                f"got {render_mode!r}"
            )
        if max_steps < 1:
            raise InputError(f"expected max_steps of at least 1, got {max_steps}")
        self.render_mode = render_mode
        self._arguments: dict[str, Any] = {
            "task": task, "reward": reward, "table": table, "model": model,
            "max_steps": max_steps, "layout": layout,
        }  # fmt: skip
        self._max_steps = max_steps
        self._layout = Layout.of(layout or {})
        self._nondeterministic = reward not in ("recorded", "predicted")
        self._problems = open_problems(task, reward, table, model, self._check_space)
        # The first task is opened now, so that what is wrong with it is said now.
        self._problem: Problem = self._problems.get(0)
        self._closed = False
        self._running = False
        self._started = False
        self._steps = 0
        self._trials = 0
        self._spent_s = 0.0
        self._best_s: float | None = None
        self._seed: int | None = None
        self._start: str | None = None
        self._start_digest = ""
        self._start_latency_us: float | None = None
        self._history: list[Step] = []

    # -- Gymnasium ------------------------------------------------------------------------------

    @property
    def spec(self) -> EnvSpec | None:
        """What `gymnasium.make` was given; `nondeterministic` only if rewards are measured."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        # The reward source is an argument, so the registered flag cannot be right for all.
        if spec is not None:
            spec = copy.copy(spec)
            spec.nondeterministic = self._nondeterministic
        self._spec = spec

    _spec: EnvSpec | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Of the task and the start, and of all later episodes until the next seed.
            options: `task` names the task, `point` the start (`Edit-v0` only).

        Raises:
            InputError: An option is not known, or names no task of this environment.
            IllegalPointError: The point named is malformed or not of the task's space.
            MachineError: No working start was found.
        """
        super().reset(seed=seed)
        options = options or {}
        unknown = sorted(set(options) - set(_RESET_OPTIONS))
        if unknown:
            raise InputError(
                f"expected reset options {' and '.join(_RESET_OPTIONS)}, got {', '.join(unknown)}"
            )
        if "task" in options:
            chosen = self._problems.find(options["task"])
        else:
            count = len(self._problems)
            chosen = int(self.np_random.integers(count)) if count > 1 else 0
        self._problem = self._problems.get(chosen)
        self._running = False
        self._steps = self._trials = 0
        self._spent_s = 0.0
        self._best_s = None
        self._seed = seed
        self._history = []
        self._begin(options.get("point"))
        self._running = self._started = True
        observation, info = self._observation(), self._info()
        self._start, self._start_latency_us = info["point"], info["latency_us"]
        self._start_digest = digest(observation)
        return observation, info

    def step(
        self, action: np.int64 | int
    ) -> tuple[Observation, SupportsFloat, bool, bool, dict[str, Any]]:
        """Apply one action; see the class for what it pays.

        Raises:
            gymnasium.error.InvalidAction: The action is no number of the action space.
            gymnasium.error.ResetNeeded: There was no reset, or the episode is over.
        """
        number = self._number(action)
        self._steps += 1
        reward, terminated, result = self._act(number)
        truncated = not terminated and self._steps >= self._max_steps
        if terminated or truncated:
            self._running = False
            reward += self._final_reward(terminated)
        observation = self._observation()
        info = self._info(result, illegal=self._was_illegal)
        self._history.append(
            Step(
                action=number,
                reward=reward,
                status=info["status"],
                illegal=info["illegal"],
                point=info["point"],
                latency_us=info["latency_us"],
                observation=digest(observation),
            )
        )
        return observation, reward, terminated, truncated, info

    @abc.abstractmethod
    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which actions are legal now, shape (n,); the name is the one sb3-contrib looks for."""

    def render(self) -> Any:
        """The schedule as text (`ansi`) or a picture of the episode (`rgb_array`).

        Returns:
            For `ansi` a str, for `rgb_array` an array of shape (height, width, 3), uint8; None
            without a render mode or before the first reset.
        """
        if self.render_mode is None or not self._started:
            return None
        if self.render_mode == "ansi":
            return self._text()
        from schedenv.envs.plot import draw_episode

        return draw_episode(self.state())

    def close(self) -> None:
        """Stop the workers, unless a fork still needs them; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._problems.release()

    # -- beyond Gymnasium -----------------------------------------------------------------------

    def fork(self) -> Self:
        """A copy at the same step of the same episode, with the same random numbers to come.

        It shares the reward source, so nothing is started anew; it is closed on its own.
        """
        twin = copy.copy(self)
        twin._np_random = copy.deepcopy(self._np_random)
        twin._history = list(self._history)
        twin._problems = self._problems.share()
        twin._closed = False
        return twin

    def state(self) -> Episode:
        """The episode so far: enough to replay it, see `schedenv.envs.episode`.

        Raises:
            gymnasium.error.ResetNeeded: There was no reset.
        """
        if not self._started:
            raise gym.error.ResetNeeded("call reset before state")
        problem = self._problem
        return Episode.of(
            self._id,
            {name: value for name, value in self._arguments.items() if value is not None},
            problem,
            self._seed,
            (self._start, self._start_latency_us, self._start_digest),
            self._history,
        )

    @property
    def task_names(self) -> tuple[str, ...]:
        """What `reset(options={"task": ...})` takes."""
        return self._problems.names

    # -- what an environment defines ------------------------------------------------------------

    _id: str
    _was_illegal = False

    @abc.abstractmethod
    def _begin(self, named: str | None) -> None:
        """Find the start of an episode; `named` is the option `point`."""

    @abc.abstractmethod
    def _act(self, action: int) -> tuple[float, bool, Result | None]:
        """Apply an action: what it pays, whether it ends the episode, what was evaluated.

        Sets `_was_illegal`.
        """

    @abc.abstractmethod
    def _final_reward(self, terminated: bool) -> float:
        """What the end of an episode pays on top of its last step."""

    @abc.abstractmethod
    def _observation(self) -> Observation:
        """What the agent sees."""

    @abc.abstractmethod
    def _here(self) -> Result | None:
        """The working candidate that the agent stands on; None if there is none yet."""

    @abc.abstractmethod
    def _text(self) -> str:
        """The state as text."""

    def _check_space(self, space: Any, name: str) -> None:
        """Refuse a task that the environment's spaces cannot hold."""
        self._layout.check(space, name)

    # -- shared ---------------------------------------------------------------------------------

    def _number(self, action: object) -> int:
        """A checked action number, of a running episode."""
        if not self._started:
            raise gym.error.ResetNeeded("call reset before step")
        if not self._running:
            raise gym.error.ResetNeeded(
                f"the episode is over after {self._steps} steps; call reset before step"
            )
        count = int(self.action_space.n)  # type: ignore[attr-defined]
        number = (
            action.item()
            if isinstance(action, np.ndarray | np.generic) and (np.ndim(action) == 0)
            else action
        )
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < count:
            raise gym.error.InvalidAction(
                f"expected an action from 0 to {count - 1}, got {action!r}"
            )
        return number

    def _legal(self, point: Point) -> Point:
        reason = self._problem.space.explain_illegal(point)
        if reason is not None:
            raise IllegalPointError(
                f"{point} is not a point of {self._problem.task.name}: {reason}"
            )
        return point

    def _evaluate(self, point: Point) -> Result:
        self._problem.source.baseline_s()
        # No incumbent: a step's reward needs the latency of slow points too.
        result = self._problem.source.evaluate(point, None)
        self._trials += 1
        self._spent_s += result.phases.total_s
        if result.estimate_s is not None:
            self._best_s = min(self._best_s or result.estimate_s, result.estimate_s)
        return result

    def _speedups(self) -> tuple[float, float]:
        """Of the current and of the best point over the untuned program; 0 where there is none."""
        here = self._here()
        baseline_s = self._problem.source.baseline_s()
        current = baseline_s / here.estimate_s if here and here.estimate_s else 0.0
        return current, baseline_s / self._best_s if self._best_s else 0.0

    @property
    def _left(self) -> float:
        """Part of the episode that is left, 0 to 1."""
        return max(0.0, 1.0 - self._steps / self._max_steps)

    def _info(self, result: Result | None = None, *, illegal: bool = False) -> dict[str, Any]:
        here, problem = self._here(), self._problem
        latency_s = here.estimate_s if here is not None else None
        known_s = latency_s if problem.is_absolute else None
        best_s = self._best_s if problem.is_absolute else None
        flops_per_s = problem.task.flops / known_s if known_s else None
        peak, optimum_s = problem.peak_flops_per_s, problem.optimum_s
        return {
            "task": problem.name,
            "status": "ok" if result is None else result.status.value,
            "reason": None if result is None else result.reason,
            "illegal": illegal,
            "point": str(here.point) if here else None,
            "latency_us": known_s * 1e6 if known_s else None,
            "speedup": problem.source.baseline_s() / latency_s if latency_s else None,
            "gflops_per_s": flops_per_s / 1e9 if flops_per_s is not None else None,
            "peak_fraction": flops_per_s / peak if peak and flops_per_s is not None else None,
            "best_us": best_s * 1e6 if best_s else None,
            "regret": best_s / optimum_s - 1.0 if optimum_s and best_s else None,
            "optimum_fraction": optimum_s / best_s if optimum_s and best_s else None,
            "trials": self._trials,
            "seconds": self._spent_s,
        }
