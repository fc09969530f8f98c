"""The vector environment as Stable-Baselines3 wants it: a `VecEnv`, without a process or a copy.

Needs the extra `train`. Stable-Baselines3's own wrappers step one environment after the other; this
one hands over whole arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from schedenv.envs.observations import Observation
from schedenv.envs.vector import EditVectorEnv
from schedenv.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv
else:
    try:
        from stable_baselines3.common.vec_env import VecEnv
    except ImportError:
        raise MissingExtraError("stable-baselines3", "train", "the adapter for SB3") from None


class EditVecEnv(VecEnv):
    """Adapts an `EditVectorEnv` in same-step mode.

    As SB3 has it, an episode that ends starts anew at once: the last observation is in
    `infos[i]["terminal_observation"]`, `infos[i]["TimeLimit.truncated"]` says whether it was cut
    off, and `infos[i]` is the info of the last step. Keys whose value is not known are left out.
    MaskablePPO finds the masks through `env_method("action_masks")`.

    Args:
        envs: Made with `autoreset_mode="same_step"`.
        info_keys: Keys that the infos of running episodes have; the last info of an episode has
            all of them. A dictionary for each environment and step takes longer than the step.

    Raises:
        InputError: The autoreset mode is another one.

    Example:
        >>> envs = EditVecEnv(
        ...     EditVectorEnv(8, reward="recorded", table="gmm", autoreset_mode="same_step")
        ... )
        >>> envs.reset()["knobs"].shape, len(envs.env_method("action_masks"))
        ((8, 57), 8)

        `VecMonitor` around it makes it an environment for `MaskablePPO("MultiInputPolicy", ...)`.
    """

    def __init__(self, envs: EditVectorEnv, info_keys: Sequence[str] = ()) -> None:
        if envs.metadata["autoreset_mode"] is not AutoresetMode.SAME_STEP:
            raise InputError(
                "SB3 starts the next episode in the step that ends one; make the environment with "
                "autoreset_mode='same_step'"
            )
        self.envs = envs
        self._info_keys = tuple(info_keys)
        self._chosen: npt.NDArray[np.int64] | None = None
        # VecEnv asks for it by `get_attr`, before there is anything to ask.
        self.render_mode = envs.render_mode
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Observation:
        """Start all episodes, with the seeds and options that were set before."""
        seeds = [None if seed is None else int(seed) for seed in self._seeds]
        options = next((option for option in self._options if option), None)
        observation, infos = self.envs.reset(seed=seeds, options=options)
        self.reset_infos = self._infos(infos, range(self.num_envs), None)
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Remember the actions; `step_wait` takes the step."""
        self._chosen = np.asarray(actions)

    def step_wait(
        self,
    ) -> tuple[Observation, npt.NDArray[np.float32], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """Take the step: observations, rewards, ends, and a dictionary for each environment."""
        assert self._chosen is not None
        observation, rewards, terminated, truncated, infos = self.envs.step(self._chosen)
        done = terminated | truncated
        running = self._infos(infos, np.flatnonzero(~done).tolist(), self._info_keys)
        for i in np.flatnonzero(done):
            (last,) = self._infos(infos["final_info"], [int(i)], None, only=True)
            last["TimeLimit.truncated"] = bool(truncated[i])
            last["terminal_observation"] = infos["final_obs"][i]
            running[i] = last
        return observation, rewards.astype(np.float32), done, running

    def close(self) -> None:
        """Close the vector environment."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the vector environment, once for each of `indices`."""
        value = getattr(self.envs, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the vector environment; it has one for all.

        Raises:
            InputError: Not all environments are meant.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise InputError(
                f"expected {attr_name} to be set for all {self.num_envs} environments, which are "
                "one object"
            )
        setattr(self.envs, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of the vector environment; its answer, one entry for each environment.

        Raises:
            InputError: The method does not answer for each environment.
        """
        answer = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        try:
            entries = list(answer)
        except TypeError:
            entries = []
        if len(entries) != self.num_envs:
            raise InputError(
                f"expected {method_name} to answer for each of {self.num_envs} environments; call "
                "it on the vector environment, `.envs`"
            )
        return [entries[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Never: there is no environment to wrap."""
        del wrapper_class
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> list[Any]:
        """None: the environment renders text."""
        return [None] * self.num_envs

    def _infos(
        self,
        infos: dict[str, Any],
        envs: Iterable[int],
        keys: Sequence[str] | None,
        *,
        only: bool = False,
    ) -> list[dict[str, Any]]:
        """One dictionary an environment, with what is known of `keys` (None for all).

        Args:
            infos: The batched info.
            envs: Which environments; of the others the dictionary is empty.
            keys: Which keys.
            only: Leave the dictionaries of the others out.
        """
        wanted = keys
        if wanted is None:
            wanted = [key for key in infos if f"_{key}" in infos and not key.startswith("final")]
        listed = list(envs)
        found: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for key in wanted:
            values, known = infos[key], infos[f"_{key}"]
            for i in listed:
                if known[i]:
                    value = values[i]
                    found[i][key] = value.item() if isinstance(value, np.generic) else value
        return [found[i] for i in listed] if only else found
