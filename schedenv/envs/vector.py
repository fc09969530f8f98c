"""`schedenv/Edit-v0` for hundreds of environments at once, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from schedenv.envs import MAX_STEPS
from schedenv.envs.actions import STOP, EditActions
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation, Observation
from schedenv.envs.pieces import batched_pieces, keys_of
from schedenv.envs.schemes import make_scheme
from schedenv.envs.vector_episodes import Episodes, Info
from schedenv.envs.vector_make import make_vector_source
from schedenv.envs.vector_source import Doubles, Landscape
from schedenv.errors import InputError, UnknownNameError
from schedenv.space.batch import Bools, Indices

_RENDER_MODES = ("ansi",)
_RESET_OPTIONS = ("point", "reset_mask", "task")


class EditVectorEnv(VectorEnv[Observation, npt.NDArray[np.int64], npt.NDArray[Any]]):
    """Many `schedenv/Edit-v0` at once: a step of all of them is a few look-ups in numpy tables.

    Observations, actions, rewards, ends of episodes and `info` are those of
    `schedenv.envs.edit.EditEnv`, batched as Gymnasium does it: `info["latency_us"]` has one entry
    an environment, and `info["_latency_us"]` says of which it is known. Sub-environment i is seeded
    with `seed + i`, or with entry i of a list, and depends on nothing beside it. With recorded
    rewards it starts where a single environment of that seed starts; with predicted ones it starts
    elsewhere, for starts are drawn many at once.

    Autoreset follows Gymnasium: `next_step` (the step after the last one starts the new episode;
    its action is ignored, its reward 0), `same_step` (the new episode starts at once; the last
    observation and info are in `final_obs` and `final_info`) or `disabled` (the caller resets with
    `options={"reset_mask": ...}`).

    No step calls TVM, but for this: with predicted rewards, where a compute location's candidates
    are not a rule, TVM is asked the first time that a pattern of unit loops occurs (see
    `schedenv.space.batch_locations`).

    All arrays that are returned are new: none is overwritten by a later step.

    Args:
        num_envs: How many environments.
        max_episode_steps: For `gymnasium.make_vec`, which passes it on: as `max_steps`, the
            smaller one counts. None for no limit but that.
        task: TASK string or strings; each episode draws one. With recorded tables it may be left
            out: they know their tasks.
        reward: `recorded` or `predicted`. Measuring is one candidate at a time, so `measured`
            needs `gymnasium.make`.
        table: For `recorded`: a path to a recorded table or the name of a shipped one, or several.
        model: For `predicted`: the folder of a saved cost model that scores rows.
        max_steps: Steps after which an episode is truncated.
        layout: Sizes of the spaces that differ from the default, such as `{"tiles": 16}`.
        render_mode: `ansi` for the schedules as text, or None.
        scheme: What steps pay, see `schedenv.envs.schemes`.
        discount: The learner's, for the scheme `shaped`.
        autoreset_mode: As above; a text or Gymnasium's `AutoresetMode`.
        observation: Pieces of the observation, see `schedenv.envs.pieces`; all but `stores`.

    Raises:
        InputError: An argument cannot be used.

    Example:
        >>> import gymnasium, schedenv
        >>> envs = gymnasium.make_vec("schedenv/Edit-v0", 256, reward="recorded", table="gmm")
        >>> observations, infos = envs.reset(seed=0)
        >>> observations["knobs"].shape, envs.unwrapped.action_masks().shape
        ((256, 57), (256, 319))
        >>> actions = envs.unwrapped.action_masks()[:, 1:].argmax(axis=1) + 1
        >>> observations, rewards, terminated, truncated, infos = envs.step(actions)
        >>> rewards.shape, rewards.dtype, infos["latency_us"].shape, infos["trials"].max()
        ((256,), dtype('float64'), (256,), np.int64(2))
        >>> envs.close()
    """

    metadata = {  # noqa: RUF012 - Gymnasium's convention
        "render_modes": list(_RENDER_MODES),
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
        scheme: str = "log_ratio",
        discount: float = 0.99,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        observation: str | Sequence[str] | None = None,
    ) -> None:
        for name, count in (("num_envs", num_envs), ("max_steps", max_steps)):
            if count < 1:
                raise InputError(f"expected {name} of at least 1, got {count}")
        if render_mode is not None and render_mode not in _RENDER_MODES:
            raise InputError(
                f"expected render_mode to be one of {list(_RENDER_MODES)} or None, "
                f"got {render_mode!r}"
            )
        self.num_envs = num_envs
        self.render_mode = render_mode
        self._autoreset = _autoreset_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self._autoreset}
        keys = keys_of(batched_pieces(observation))
        sizes = Layout.of(layout or {})
        self._scheme = make_scheme(scheme, discount)
        self._source = make_vector_source(reward, task, table, model, sizes)
        self._last_step = min(max_steps, max_episode_steps or max_steps)
        self._episodes = Episodes(num_envs, self._source, max_steps, keys)
        self._actions = EditActions(sizes).space
        self.single_action_space = self._actions
        self.action_space = batch_space(self.single_action_space, num_envs)
        boxes = KnobObservation(sizes).space
        self.single_observation_space = spaces.Dict({key: boxes[key] for key in keys})
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._rngs: list[np.random.Generator] = []
        self._rng_seeds: list[int] = []
        self._done = np.zeros(num_envs, np.bool_)

    @property
    def task_names(self) -> tuple[str, ...]:
        """What `reset(options={"task": ...})` takes."""
        return tuple(fact.title for fact in self._source.facts)

    @property
    def landscapes(self) -> tuple[Landscape, ...]:
        """The tasks, for those that walk through their spaces themselves."""
        return tuple(self._source.landscape(task) for task in range(len(self._source.facts)))

    @property  # type: ignore[misc]
    def np_random(  # type: ignore[override]
        self,
    ) -> tuple[np.random.Generator, ...]:
        """The generator of each sub-environment, as `SyncVectorEnv` has them."""
        self._seed(None)
        return tuple(self._rngs)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each sub-environment."""
        self._seed(None)
        return tuple(self._rng_seeds)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, Info]:
        """Start episodes in all environments, or in those of `options["reset_mask"]`.

        Args:
            seed: For sub-environment i `seed + i`, or its entry of a list; None goes on with the
                generators as they are.
            options: `task` names the task of all, `point` the starting point of all,
                `reset_mask` (bool, shape (num_envs,)) the environments to start.

        Raises:
            InputError: An option, or the number of seeds, does not fit.
            IllegalPointError: The point named is malformed or not of the space.
            MachineError: No working start was found.
            gymnasium.error.ResetNeeded: Only some environments are to start, and none has yet.
        """
        options = options or {}
        unknown = sorted(set(options) - set(_RESET_OPTIONS))
        if unknown:
            raise InputError(
                f"expected reset options among {', '.join(_RESET_OPTIONS)}, "
                f"got {', '.join(unknown)}"
            )
        who = self._reset_mask(options.get("reset_mask"))
        task = self._position(options["task"]) if "task" in options else None
        self._seed(seed, who)
        self._episodes.start(np.flatnonzero(who), self._rngs, task, options.get("point"))
        self._done = self._done & ~who
        return self._episodes.observation(), self._episodes.info(who)

    def step(
        self, actions: npt.NDArray[np.int64]
    ) -> tuple[Observation, Doubles, Bools, Bools, Info]:
        """Apply one action to each environment.

        Returns:
            Observations, rewards (float64), terminations, truncations (bool), each with the
            environment as its first axis, and the info.

        Raises:
            gymnasium.error.InvalidAction: The actions' number, type or range is wrong.
            gymnasium.error.ResetNeeded: There was no reset, or an episode is over and autoreset
                is disabled.
        """
        chosen, over = self._checked(actions), self._done
        if self._autoreset is AutoresetMode.DISABLED and over.any():
            raise gym.error.ResetNeeded(
                f"the episodes of environments {np.flatnonzero(over)[:8].tolist()} are over; "
                "call reset with options={'reset_mask': terminated | truncated}"
            )
        episodes = self._episodes
        terminated = ~over & (chosen == STOP)
        paid = episodes.act(chosen, ~over, terminated, self._scheme)
        truncated = ~over & ~terminated & (episodes.steps >= self._last_step)
        done = terminated | truncated
        if done.any():
            paid += np.where(done, episodes.final_rewards(self._scheme), 0.0)
        if over.any():
            episodes.start(np.flatnonzero(over), self._rngs)
        final: Info = {}
        if self._autoreset is AutoresetMode.SAME_STEP:
            if done.any():
                final = self._final(done)
                episodes.start(np.flatnonzero(done), self._rngs)
        else:
            self._done = done
        return episodes.observation(), paid, terminated, truncated, {**episodes.info(), **final}

    def action_masks(self) -> Bools:
        """Which actions are legal now, shape (num_envs, n).

        Raises:
            gymnasium.error.ResetNeeded: There was no reset.
        """
        if self._episodes.points is None:
            raise gym.error.ResetNeeded("call reset before action_masks")
        return self._source.masks(self._episodes.points)

    def render(self) -> tuple[str, ...] | None:
        """The schedules as text, for render mode `ansi`; None before the first reset."""
        if self.render_mode is None or self._episodes.points is None:
            return None
        return tuple(self._episodes.text(env) for env in range(self.num_envs))

    def _final(self, done: Bools) -> Info:
        """How the episodes ended, as Gymnasium tells it in same-step mode."""
        last, final_obs = self._episodes.observation(), np.full(self.num_envs, None, object)
        for i in np.flatnonzero(done):
            final_obs[i] = {key: value[i].copy() for key, value in last.items()}
        return {
            "final_obs": final_obs,
            "_final_obs": done.copy(),
            "final_info": self._episodes.info(done),
            "_final_info": done.copy(),
        }

    # -- arguments ------------------------------------------------------------------------------

    def _checked(self, actions: npt.NDArray[np.int64]) -> Indices:
        if self._episodes.points is None:
            raise gym.error.ResetNeeded("call reset before step")
        chosen, count = np.asarray(actions), int(self._actions.n)
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

    def _position(self, task: object) -> int:
        titles = self.task_names
        if task in titles:
            return titles.index(str(task))
        if task not in self._source.aliases:
            raise UnknownNameError("task of this environment", str(task), titles)
        return self._source.aliases[str(task)]

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
        if self._episodes.points is None and not found.all():
            raise gym.error.ResetNeeded("call reset for all environments first")
        return found.copy()

    def _seed(self, seed: int | Sequence[int | None] | None, who: Bools | None = None) -> None:
        """Seed the generators of some environments; those that have none get a random one."""
        if not self._rngs:
            drawn = [seeding.np_random() for _ in range(self.num_envs)]
            self._rngs, self._rng_seeds = [rng for rng, _ in drawn], [number for _, number in drawn]
        if seed is None:
            return
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else list(seed)
        if len(seeds) != self.num_envs:
            raise InputError(f"expected one seed or {self.num_envs} of them, got {len(seeds)}")
        for i, number in enumerate(seeds):
            if number is not None and (who is None or who[i]):
                self._rngs[i], self._rng_seeds[i] = seeding.np_random(number)


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    if isinstance(mode, AutoresetMode):
        return mode
    known = {name: found for found in AutoresetMode for name in (found.name.lower(), found.value)}
    if mode not in known:
        raise InputError(
            f"expected autoreset_mode to be one of {[m.name.lower() for m in AutoresetMode]}, "
            f"got {mode!r}"
        )
    return known[mode]
