"""MaskablePPO (sb3-contrib) on the vector environment: one network for all tasks.

Proximal policy optimisation (Schulman et al., 2017) with illegal actions masked out of the
distribution (Huang and Ontañón, 2022). Training needs the extra `train`; acting needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from schedenv.envs.observations import Observation
from schedenv.envs.vector import EditVectorEnv
from schedenv.errors import InputError, MissingExtraError, TrainingDivergedError
from schedenv.space.batch import Bools, Indices
from schedenv.training.policy import Arrays, Policy, RandomPolicy, choose
from schedenv.training.trainer import Setting, Trainer, diverged

if TYPE_CHECKING:
    from sb3_contrib import MaskablePPO

_NORMALISING_STEPS = 128
_LEAST_DEVIATION = 1e-6

Floats = npt.NDArray[np.float32]


class PpoTrainer(Trainer):
    """Trains with sb3-contrib's `MaskablePPO`; see `Trainer`.

    Inputs are normalised by means and deviations of random episodes, found once and kept with the
    weights: a factor of two in a tile is a twentieth of the observation's range. What never varies
    while training (the family's one-hot entry, on one task) is multiplied by zero, so that no
    weight that was never trained speaks on a held-out task.
    """

    defaults = {  # noqa: RUF012 - read only
        "environments": 256,
        "rollout_steps": 32,
        "batch_size": 2048,
        "epochs": 3,
        "learning_rate": 1e-3,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip_range": 0.2,
        "entropy": 0.01,
        "width": 128,
    }
    libraries = ("torch", "stable-baselines3", "sb3-contrib")

    def __init__(self, envs: EditVectorEnv, seed: int, settings: Mapping[str, Setting]) -> None:
        try:
            import sb3_contrib
            from stable_baselines3.common.logger import Logger
        except ImportError:
            raise MissingExtraError("sb3-contrib", "train", "training the agent ppo") from None
        from schedenv.envs.sb3 import EditVecEnv

        batch_size = int(settings["batch_size"])
        self._rollout = envs.num_envs * int(settings["rollout_steps"])
        if min(batch_size, self._rollout) < 2:
            raise InputError(
                f"expected at least 2 steps in a batch, for advantages are normalised; got "
                f"batch_size={batch_size} and {self._rollout} steps in a rollout"
            )
        mean, scale = _normalisation(envs, seed)
        width = int(settings["width"])
        with _one_thread():
            self._model: MaskablePPO = sb3_contrib.MaskablePPO(
                "MultiInputPolicy",
                EditVecEnv(envs),
                n_steps=int(settings["rollout_steps"]),
                batch_size=min(batch_size, self._rollout),
                n_epochs=int(settings["epochs"]),
                learning_rate=float(settings["learning_rate"]),
                gamma=float(settings["gamma"]),
                gae_lambda=float(settings["gae_lambda"]),
                clip_range=float(settings["clip_range"]),
                ent_coef=float(settings["entropy"]),
                policy_kwargs={
                    "net_arch": [width, width],
                    "features_extractor_class": _extractor_class(),
                    "features_extractor_kwargs": {"mean": mean, "scale": scale},
                },
                seed=seed,
                device="cpu",
            )
        self._log = Logger(None, [])
        self._model.set_logger(self._log)

    @property
    def steps(self) -> int:
        """Steps learned from so far."""
        return int(self._model.num_timesteps)

    def learn(self) -> Mapping[str, float]:
        """One rollout of all environments, and what PPO learns from it.

        Raises:
            TrainingDivergedError: The policy is no distribution any more.
        """
        with _one_thread():
            try:
                self._model.learn(self._rollout, reset_num_timesteps=False)
            except ValueError as error:
                # torch refuses a distribution of NaN.
                raise TrainingDivergedError(diverged(self.steps)) from error
        values: Mapping[str, Any] = self._log.name_to_value
        return {name: float(values[name]) for name in values if name.startswith("train/")}

    def weights(self) -> Arrays:
        """The networks of policy and value, and the normalisation."""
        return {name: tensor.numpy() for name, tensor in self._model.policy.state_dict().items()}

    def state(self) -> Arrays:
        """Adam's moments, named by the number of the parameter."""
        return {
            f"{number}.{name}": np.asarray(value)
            for number, moments in self._model.policy.optimizer.state_dict()["state"].items()
            for name, value in moments.items()
        }

    def restore(self, weights: Arrays, state: Arrays, steps: int) -> None:
        """Go on from a checkpoint; see `Trainer`.

        The random numbers to come are those of the seed and the steps, not those that an
        uninterrupted run would have drawn.
        """
        import torch

        policy, optimizer = self._model.policy, self._model.policy.optimizer
        moments: dict[int, dict[str, Any]] = {}
        for name, value in state.items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = torch.from_numpy(np.array(value))
        try:
            policy.load_state_dict({name: torch.from_numpy(a) for name, a in weights.items()})
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())[:200]) from None
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        self._model.num_timesteps = steps
        self._model.set_random_seed((int(self._model.seed or 0) * 1_000_003 + steps) % 2**31)

    @classmethod
    def make_policy(cls, weights: Arrays) -> Policy:
        """The policy in numpy; see `PpoPolicy`."""
        return PpoPolicy(weights)


class PpoPolicy:
    """The policy network in numpy: what acts in episodes, without torch.

    Args:
        weights: As `PpoTrainer.weights` gives them; the value network is not used.

    Raises:
        ValueError: Arrays are missing or do not fit together.
    """

    def __init__(self, weights: Arrays) -> None:
        try:
            self._mean = weights["features_extractor.mean"]
            self._scale = weights["features_extractor.scale"]
            names = ["mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2", "action_net"]
            self._layers = [
                (np.ascontiguousarray(weights[f"{name}.weight"].T), weights[f"{name}.bias"])
                for name in names
            ]
        except KeyError as error:
            raise ValueError(f"there is no array {error}") from None
        width = len(self._mean)
        for name, (matrix, bias) in zip(names, self._layers, strict=True):
            if matrix.shape != (width, len(bias)):
                raise ValueError(f"{name} has shape {matrix.T.shape} after {width} values")
            width = len(bias)

    def logits(self, observations: Observation) -> Floats:
        """The logits of all actions, legal or not, shape (n, actions)."""
        joined = np.concatenate([observations[key] for key in sorted(observations)], axis=1)
        values = (joined - self._mean) * self._scale
        for matrix, bias in self._layers[:-1]:
            values = np.tanh(values @ matrix + bias)
        matrix, bias = self._layers[-1]
        logits: Floats = values @ matrix + bias
        return logits

    def act(
        self, observations: Observation, masks: Bools, rng: np.random.Generator | None = None
    ) -> Indices:
        """One legal action for each environment; see `Policy`."""
        return choose(self.logits(observations), masks, rng)


def _normalisation(envs: EditVectorEnv, seed: int) -> tuple[Floats, Floats]:
    """Mean and inverse deviation of every entry of the observation, in random episodes."""
    rng = np.random.default_rng(seed)
    walker = RandomPolicy()
    observation, _ = envs.reset(seed=seed)
    seen = []
    for _ in range(_NORMALISING_STEPS):
        seen.append(np.concatenate([observation[key] for key in sorted(observation)], axis=1))
        observation, *_ = envs.step(walker.act(observation, envs.action_masks(), rng))
    joined = np.concatenate(seen).astype(np.float64)
    deviation = joined.std(axis=0)
    varies = deviation > _LEAST_DEVIATION
    scale = np.where(varies, 1.0 / np.where(varies, deviation, 1.0), 0.0)
    return joined.mean(axis=0).astype(np.float32), scale.astype(np.float32)


def _extractor_class() -> type:
    """The normalisation as a layer of SB3, made here so that importing this file needs no torch."""
    import torch
    from gymnasium import spaces
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class NormalisedObservation(BaseFeaturesExtractor):
        def __init__(self, space: spaces.Dict, mean: Floats, scale: Floats) -> None:
            super().__init__(space, len(mean))
            self.register_buffer("mean", torch.from_numpy(mean))
            self.register_buffer("scale", torch.from_numpy(scale))

        def forward(self, observations: Mapping[str, Any]) -> Any:
            joined = torch.cat([observations[key] for key in sorted(observations)], dim=1)
            return (joined - self.mean) * self.scale

    return NormalisedObservation


@contextmanager
def _one_thread() -> Iterator[None]:
    """The matrices are too small to share, and one thread adds up in one order everywhere."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
