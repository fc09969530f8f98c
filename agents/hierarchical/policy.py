"""The policy over knob edits: an actor that scores the legal moves of a point, and a critic.

A move is described by what it changes in the features that mean the same in every space, so one
network serves any number of moves, sketches and tasks. Trained by PPO (Schulman et al., 2017) with
one-step advantages, as in HARL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schedenv.errors import InstallError

from .config import HierarchicalConfig
from .encoding import SHARED

Floats = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[Any]]

_UNITS = 32
_SCALE = 1 / 8
_VALUE_WEIGHT = 0.5


@dataclass(frozen=True)
class Steps:
    """Steps of tracks, as the policy learns from them.

    Attributes:
        states: Features of the points, shape (n, `SHARED`).
        changes: What each legal move changes in them, shape (n, moves, `SHARED`), zeros after the
            last move.
        counts: Legal moves of each point, shape (n,).
        actions: The moves taken, shape (n,).
        log_odds: Log probabilities of the moves taken, shape (n,).
        targets: Reward and discounted value of the next point, shape (n,).
        advantages: `targets` less the value of the point, shape (n,).
    """

    states: Floats
    changes: Floats
    counts: npt.NDArray[np.intp]
    actions: npt.NDArray[np.intp]
    log_odds: Floats
    targets: Floats
    advantages: Floats


class Policy:
    """Actor and critic.

    Args:
        config: Learning rates and PPO's settings.
        seed: Of the initial weights.

    Raises:
        InstallError: torch is missing.
    """

    def __init__(self, config: HierarchicalConfig, seed: int) -> None:
        try:
            import torch
        except ImportError:
            raise InstallError(
                "the hierarchical agent learns with torch, which is not installed; "
                "run: pip install 'schedenv[models]'"
            ) from None
        # The threads of a larger pool would spin beside the kernels that are timed.
        torch.set_num_threads(1)
        self._config, self._torch = config, torch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._actor = _network(torch, 2 * SHARED)
            self._critic = _network(torch, SHARED)
        self._optimisers = [
            torch.optim.Adam(self._actor.parameters(), config.actor_rate),
            torch.optim.Adam(self._critic.parameters(), config.critic_rate),
        ]

    def log_odds(self, states: Floats, changes: Floats, counts: npt.NDArray[np.intp]) -> Floats:
        """Log probabilities of the moves, shape (n, moves); minus infinity after the last one."""
        with self._torch.no_grad():
            odds: Floats = (
                self._log_odds(self._tensor(states), self._tensor(changes), counts)
                .numpy()
                .astype(np.float64)
            )
        return odds

    def weights(self) -> Arrays:
        """Actor and critic, by name."""
        return {
            f"{name}.{key}": tensor.numpy().copy()
            for name, network in self._networks()
            for key, tensor in network.state_dict().items()
        }

    def moments(self) -> Arrays:
        """What the optimisers remember, by name."""
        return {
            f"{name}.{number}.{key}": value.numpy().copy()
            for (name, _), optimiser in zip(self._networks(), self._optimisers, strict=True)
            for number, kept in optimiser.state_dict()["state"].items()
            for key, value in kept.items()
        }

    def load(self, weights: Arrays, moments: Arrays | None = None) -> None:
        """Go on with what a policy had learned.

        Raises:
            ValueError: The arrays are not those of a policy.
        """
        check_weights(weights)
        torch = self._torch
        for (name, network), optimiser in zip(self._networks(), self._optimisers, strict=True):
            network.load_state_dict(
                {key: torch.from_numpy(np.array(a)) for key, a in _under(name, weights).items()}
            )
            state: dict[int, dict[str, Any]] = {}
            for text, value in _under(name, moments or {}).items():
                number, _, key = text.partition(".")
                state.setdefault(int(number), {})[key] = torch.from_numpy(np.array(value))
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})

    def _networks(self) -> tuple[tuple[str, Any], ...]:
        return ("actor", self._actor), ("critic", self._critic)

    def values(self, states: Floats) -> Floats:
        """What the critic expects from points on, shape (n,)."""
        with self._torch.no_grad():
            values: Floats = self._critic(self._tensor(states))[:, 0].numpy().astype(np.float64)
        return values

    def learn(self, steps: Steps) -> None:
        """A few passes of PPO over the steps of one round."""
        torch, config = self._torch, self._config
        states, changes = self._tensor(steps.states), self._tensor(steps.changes)
        actions = torch.as_tensor(steps.actions)[:, None]
        old = self._plain(steps.log_odds)
        targets = self._plain(steps.targets)
        spread = float(steps.advantages.std()) + 1e-6
        advantages = self._plain((steps.advantages - steps.advantages.mean()) / spread)
        for _ in range(config.epochs):
            log_odds = self._log_odds(states, changes, steps.counts)
            ratio = (log_odds.gather(1, actions)[:, 0] - old).exp()
            clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
            gain = torch.minimum(ratio * advantages, clipped * advantages).mean()
            odds = log_odds.exp()
            entropy = -(odds * log_odds.clamp(min=-30.0)).sum(1).mean()
            error = (self._critic(states)[:, 0] - targets).square().mean()
            loss = -gain - config.entropy * entropy + _VALUE_WEIGHT * error
            for optimiser in self._optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in self._optimisers:
                optimiser.step()

    def _log_odds(self, states: Any, changes: Any, counts: npt.NDArray[np.intp]) -> Any:
        torch = self._torch
        moves = changes.shape[1]
        pairs = torch.cat([states[:, None].expand(-1, moves, -1), changes], dim=2)
        logits = self._actor(pairs)[:, :, 0]
        beyond = torch.arange(moves)[None] >= torch.as_tensor(counts)[:, None]
        return logits.masked_fill(beyond, -1e9).log_softmax(dim=1)

    def _tensor(self, features: Floats) -> Any:
        return self._plain(features * _SCALE)

    def _plain(self, values: Floats) -> Any:
        return self._torch.as_tensor(values, dtype=self._torch.float32)


def check_weights(weights: Arrays) -> None:
    """Refuse arrays that `Policy.weights` would not give.

    Raises:
        ValueError: Some are missing, or have other shapes.
    """
    for name, inputs in (("actor", 2 * SHARED), ("critic", SHARED)):
        shapes = {"0.weight": (_UNITS, inputs), "0.bias": (_UNITS,)}
        shapes |= {"2.weight": (1, _UNITS), "2.bias": (1,)}
        found = {key: array.shape for key, array in _under(name, weights).items()}
        if found != shapes:
            raise ValueError(f"{name}: expected arrays of {shapes}, got {found}")


def _under(name: str, arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """The arrays whose names begin with a name, by the rest."""
    start = f"{name}."
    return {
        key.removeprefix(start): array for key, array in arrays.items() if key.startswith(start)
    }


def _network(torch: Any, inputs: int) -> Any:
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, _UNITS), torch.nn.Tanh(), torch.nn.Linear(_UNITS, 1)
    )
