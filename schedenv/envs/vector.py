"""`schedenv/Edit-v0` for hundreds of environments at once, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from schedenv.envs import MAX_STEPS, rewards
from schedenv.envs.actions import STOP, EditActions
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation, Observation
from schedenv.envs.vector_make import make_vector_source
from schedenv.envs.vector_source import OK, STATUSES, Points
from schedenv.errors import InputError, MachineError
from schedenv.space.batch import Bools, Indices

Floats = npt.NDArray[np.float64]
Info = dict[str, Any]

_START_ATTEMPTS = 20
_STATUS_NAMES = np.array([status.value for status in STATUSES], object)


class EditVectorEnv(VectorEnv[Observation, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """Many `schedenv/Edit-v0` at once: a step of all of them is a few look-ups in numpy tables.

    Observations, actions, rewards, ends of episodes and `info` are those of
    `schedenv.envs.edit.EditEnv`, batched as Gymnasium does it: `info["latency_us"]` has one entry
    an environment, and `info["_latency_us"]` says which of them are meant. Sub-environment i is
    seeded with `seed + i`, or with entry i of a list.

    Autoreset follows Gymnasium: `next_step` (the step after the last one starts the new episode;
    its action is ignored, its reward 0), `same_step` (the new episode starts at once; the last
    observation and info are in `final_obs` and `final_info`) or `disabled` (the caller resets with
    `options={"reset_mask": ...}`).

    All arrays that are returned are new ones, except with `copy=False`, with which `task` and
    `hardware`, which never change, are the same arrays every time.

    Args:
        num_envs: How many environments.
        max_episode_steps: Steps after which an episode is truncated; None for `max_steps`.
        task: TASK string, or several; environment i works on task i modulo their number. With
            recorded tables, None: they know their task.
        reward: `recorded` or `predicted`. Measuring is one candidate at a time, so `measured`
            needs `gymnasium.make`.
        table: For `recorded`: a path to a recorded table or the name of a shipped one, or several.
        model: For `predicted`: the folder of a saved cost model.
        max_steps: Steps that `progress` in the observation counts down.
        layout: Sizes of the spaces that differ from the default, such as `{"tiles": 16}`.
        render_mode: `ansi` for the schedules as text, or None.
        autoreset_mode: As above; a text or Gymnasium's `AutoresetMode`.
        copy: See above.

    Raises:
        InputError: An argument cannot be used.

    Example:
        >>> import gymnasium, schedenv
        >>> envs = gymnasium.make_vec("schedenv/Edit-v0", 256, reward="recorded", table=TABLE)
        >>> observations, infos = envs.reset(seed=0)
        >>> observations["knobs"].shape, envs.unwrapped.action_masks().shape
        ((256, 57), (256, 319))
    """

    metadata = {  # noqa: RUF012 - Gymnasium's convention
        "render_modes": ["ansi"],
        "render_fps": 1,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        task: str | Sequence[str] | None = None,
        reward: str = "measured",
        table: str | Sequence[str] | None = None,
        model: str | None = None,
        max_steps: int = MAX_STEPS,
        layout: dict[str, int] | None = None,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        copy: bool = True,
    ) -> None:
        for name, count in (("num_envs", num_envs), ("max_steps", max_steps)):
            if count < 1:
                raise InputError(f"expected {name} of at least 1, got {count}")
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "autoreset_mode": _autoreset_mode(autoreset_mode)}
        sizes = Layout.of(layout or {})
        self._source = make_vector_source(reward, task, table, model, sizes)
        self._last_step = max_steps if max_episode_steps is None else max_episode_steps
        self._max_steps = max_steps
        self._copy = copy
        self.single_action_space = EditActions(sizes).space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.single_observation_space = KnobObservation(sizes).space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        facts = self._source.facts
        self._tasks = np.arange(num_envs) % len(facts)
        self._flops = np.array([fact.flops for fact in facts])[self._tasks]
        self._baseline_s = np.array([fact.baseline_s for fact in facts])[self._tasks]
        self._constant = {
            "task": np.stack([fact.task for fact in facts])[self._tasks],
            "hardware": np.stack([fact.hardware for fact in facts])[self._tasks],
        }
        self._rngs: list[tuple[np.random.Generator, int]] | None = None
        self._points: Points | None = None
        self._seconds = np.full(num_envs, np.nan)
        self._best_s = np.full(num_envs, np.inf)
        self._steps = np.zeros(num_envs, np.int64)
        self._trials = np.zeros(num_envs, np.int64)
        self._done = np.zeros(num_envs, np.bool_)

    @property  # type: ignore[misc]
    def np_random(  # type: ignore[override]
        self,
    ) -> tuple[np.random.Generator, ...]:
        """The generator of each sub-environment."""
        return tuple(rng for rng, _ in self._generators())

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each sub-environment."""
        return tuple(seed for _, seed in self._generators())

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, Info]:
        """Start all environments, or those of `options["reset_mask"]`, at points that work.

        Args:
            seed: For sub-environment i `seed + i`, or its entry of a list; None goes on with the
                generators as they are.
            options: `point` names the starting point, `reset_mask` (bool, shape (num_envs,)) the
                environments to start.

        Raises:
            InputError: The number of seeds or the mask does not fit.
            IllegalPointError: The point named is malformed or not of the space.
            MachineError: A task has no working starting point.
        """
        options = options or {}
        who = self._reset_mask(options.get("reset_mask"))
        self._seed(seed, who)
        self._start(np.flatnonzero(who), options.get("point"))
        self._done[who] = False
        status = np.full(self.num_envs, OK, np.int8)
        return self._observation(), self._info(status, np.zeros_like(who), who)

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Observation, Floats, Bools, Bools, Info]:
        """Apply one action to each environment.

        Returns:
            Observations, rewards (float64), terminations, truncations (bool), each with the
            environment as its first axis, and the info.

        Raises:
            gymnasium.error.InvalidAction: The actions' number, type or range is wrong.
            gymnasium.error.ResetNeeded: There was no reset, or an episode is over and autoreset
                is disabled.
        """
        if self._points is None:
            raise gym.error.ResetNeeded("call reset before step")
        chosen = self._checked(actions)
        mode = self.metadata["autoreset_mode"]
        if mode is AutoresetMode.DISABLED and self._done.any():
            raise gym.error.ResetNeeded(
                f"the episodes of environments {np.flatnonzero(self._done)[:8].tolist()} are over; "
                'call reset(options={"reset_mask": terminations | truncations})'
            )
        acting, restarting = ~self._done, self._done
        stops = acting & (chosen == STOP)
        moved, legal = self._source.move(self._points, chosen)
        tried = acting & legal
        illegal = acting & ~legal & ~stops
        rewards_, status = self._settle(moved, tried)
        rewards_[illegal] = rewards.ILLEGAL_REWARD
        self._trials += tried
        self._steps += acting
        truncated = acting & (self._steps >= self._last_step)
        done = stops | truncated
        if restarting.any():
            self._start(np.flatnonzero(restarting), None)
        if mode is AutoresetMode.SAME_STEP and done.any():
            infos = self._finish(done, status, illegal)
        else:
            self._done = done
            infos = self._info(status, illegal, None)
        return self._observation(), rewards_, stops, truncated, infos

    def action_masks(self) -> Bools:
        """Which actions are legal now, shape (num_envs, n)."""
        if self._points is None:
            raise gym.error.ResetNeeded("call reset before action_masks")
        return self._source.masks(self._points)

    def render(self) -> tuple[str, ...] | None:
        """The schedules as text, for render mode `ansi`."""
        if self.render_mode != "ansi" or self._points is None:
            return None
        return tuple(
            f"{self._source.facts[task].name}: {self._seconds[i] * 1e6:.1f} us "
            f"(best {self._best_s[i] * 1e6:.1f} us)\n"
            f"{self._source.describe(self._points[i : i + 1])}"
            for i, task in enumerate(self._tasks.tolist())
        )

    # -- steps ----------------------------------------------------------------------------------

    def _settle(self, moved: Points, tried: Bools) -> tuple[Floats, npt.NDArray[np.int8]]:
        """Go to the candidates that work; the rewards and statuses of all environments."""
        assert self._points is not None
        rewards_ = np.zeros(self.num_envs)
        status = np.full(self.num_envs, OK, np.int8)
        at = np.flatnonzero(tried)
        candidates = moved[at]
        seconds, status[at] = self._source.evaluate(candidates)
        works = status[at] == OK
        good = at[works]
        rewards_[at[~works]] = rewards.FAILURE_REWARD
        rewards_[good] = np.log(self._seconds[good] / seconds[works])
        self._points[good] = candidates[works]
        self._seconds[good] = seconds[works]
        self._best_s[good] = np.minimum(self._best_s[good], seconds[works])
        return rewards_, status

    def _finish(self, done: Bools, status: npt.NDArray[np.int8], illegal: Bools) -> Info:
        """Start the next episodes at once; the info with the ends of the last ones."""
        ended = np.flatnonzero(done)
        last = self._observation()
        final_obs = np.full(self.num_envs, None, object)
        for i in ended:
            final_obs[i] = {key: value[i].copy() for key, value in last.items()}
        final_info = self._info(status, illegal, done)
        self._start(ended, None)
        infos = self._info(np.where(done, OK, status), illegal & ~done, None)
        return {
            **infos,
            "final_obs": final_obs,
            "_final_obs": done.copy(),
            "final_info": final_info,
            "_final_info": done.copy(),
        }

    def _start(self, envs: Indices, named: str | None) -> None:
        """Put environments at points that work: drawn, or the one named."""
        self._steps[envs] = 0
        self._best_s[envs] = np.inf
        generators = self._generators()
        pending = envs
        for _ in range(1 if named is not None else _START_ATTEMPTS):
            if named is None:
                drawn = self._source.draw(self._tasks[pending], [generators[i][0] for i in pending])
            else:
                parsed = {
                    t: self._source.parse(t, named) for t in set(self._tasks[pending].tolist())
                }
                drawn = np.concatenate([parsed[t] for t in self._tasks[pending].tolist()])
            seconds, status = self._source.evaluate(drawn)
            self._trials[pending] += 1
            if self._points is None:
                self._points = np.zeros((self.num_envs, *drawn.shape[1:]), drawn.dtype)
            works = status == OK
            self._points[pending[works]] = drawn[works]
            self._seconds[pending[works]] = self._best_s[pending[works]] = seconds[works]
            pending, drawn = pending[~works], drawn[~works]
            if not len(pending):
                return
        attempts = 1 if named is not None else _START_ATTEMPTS
        raise MachineError(
            f"none of {attempts} starting points of "
            f"{self._source.facts[int(self._tasks[pending[0]])].name} works; the last: "
            f"{self._source.reason(drawn[:1])}. Run: schedenv doctor"
        )

    # -- what is returned -----------------------------------------------------------------------

    def _observation(self) -> Observation:
        assert self._points is not None
        knobs, knob_mask, sketch = self._source.observe(self._points)
        progress = np.empty((self.num_envs, 3), np.float32)
        progress[:, 0] = np.maximum(0.0, 1.0 - self._steps / self._max_steps)
        progress[:, 1] = np.log2(self._baseline_s / self._seconds) / 10
        progress[:, 2] = np.log2(self._baseline_s / self._best_s) / 10
        np.clip(progress, -1.0, 1.0, out=progress)
        constant = self._constant
        if self._copy:
            constant = {key: value.copy() for key, value in constant.items()}
        return {
            "knobs": knobs,
            "knob_mask": knob_mask,
            "sketch": sketch,
            **constant,
            "progress": progress,
        }

    def _info(self, status: npt.NDArray[np.int8], illegal: Bools, meant: Bools | None) -> Info:
        """The batched info; entries that are not `meant` are zero or None, as Gymnasium's are."""
        assert self._points is not None
        arrays: Info = {
            "status": _STATUS_NAMES[status],
            "latency_us": self._seconds * 1e6,
            "speedup": self._baseline_s / self._seconds,
            "gflops_per_s": self._flops / self._seconds / 1e9,
            "best_us": self._best_s * 1e6,
            "point": self._source.texts(self._points),
            "trials": self._trials.copy(),
            "illegal": illegal.copy(),
        }
        if meant is None:
            meant = np.ones(self.num_envs, np.bool_)
        elif not meant.all():
            for array in arrays.values():
                array[~meant] = None if array.dtype == object else 0
        infos: Info = {}
        for key, array in arrays.items():
            infos[key], infos[f"_{key}"] = array, meant.copy()
        return infos

    # -- arguments ------------------------------------------------------------------------------

    def _checked(self, actions: npt.NDArray[np.int64]) -> Indices:
        chosen = np.asarray(actions)
        count = int(self.single_action_space.n)  # type: ignore[attr-defined]
        if chosen.shape != (self.num_envs,) or not np.issubdtype(chosen.dtype, np.integer):
            raise gym.error.InvalidAction(
                f"expected {self.num_envs} integers, shape ({self.num_envs},); got an array of "
                f"shape {chosen.shape} and type {chosen.dtype}"
            )
        outside = (chosen < 0) | (chosen >= count)
        if outside.any():
            i = int(outside.argmax())
            raise gym.error.InvalidAction(
                f"expected actions from 0 to {count - 1}, got {chosen[i]} for environment {i}"
            )
        return chosen.astype(np.intp, copy=False)

    def _reset_mask(self, mask: Any) -> Bools:
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        found = np.asarray(mask)
        if found.shape != (self.num_envs,) or found.dtype != np.bool_ or not found.any():
            raise InputError(
                f"expected options['reset_mask'] as booleans of shape ({self.num_envs},), one of "
                f"them True at least; got shape {found.shape}, type {found.dtype}, "
                f"{np.count_nonzero(found)} of them true"
            )
        if self._points is None and not found.all():
            raise gym.error.ResetNeeded("call reset for all environments first")
        return found

    def _generators(self) -> list[tuple[np.random.Generator, int]]:
        if self._rngs is None:
            self._rngs = [seeding.np_random() for _ in range(self.num_envs)]
        return self._rngs

    def _seed(self, seed: int | Sequence[int | None] | None, who: Bools) -> None:
        if seed is None:
            return
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else list(seed)
        if len(seeds) != self.num_envs:
            raise InputError(f"expected one seed or {self.num_envs} of them, got {len(seeds)}")
        generators = self._generators()
        for i in np.flatnonzero(who):
            if seeds[i] is not None:
                generators[i] = seeding.np_random(seeds[i])


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    known = {known.name.lower(): known for known in AutoresetMode}
    known |= {known.value.lower(): known for known in AutoresetMode}
    if isinstance(mode, AutoresetMode):
        return mode
    if mode.lower() not in known:
        raise InputError(
            f"expected autoreset_mode to be one of {[m.name.lower() for m in AutoresetMode]}, "
            f"got {mode!r}"
        )
    return known[mode.lower()]
