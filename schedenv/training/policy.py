"""What a policy is: observations and masks of many environments in, one action each out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from schedenv.envs.observations import Observation
from schedenv.space.batch import Bools, Indices

Arrays = Mapping[str, npt.NDArray[Any]]
"""Weights, or the state of an optimizer, by name; what a checkpoint keeps."""


class Policy(Protocol):
    """Chooses actions for a batch of environments."""

    def act(
        self, observations: Observation, masks: Bools, rng: np.random.Generator | None = None
    ) -> Indices:
        """One legal action for each environment.

        Args:
            observations: As `EditVectorEnv` gives them, the environment as the first axis.
            masks: Which actions are legal, shape (n, actions).
            rng: Draws from the policy's distribution; None takes its most likely action.

        Returns:
            Integers, shape (n,).
        """
        ...


class RandomPolicy:
    """Any legal action, each as likely as the others: the line that a policy has to beat."""

    def act(
        self, observations: Observation, masks: Bools, rng: np.random.Generator | None = None
    ) -> Indices:
        """One legal action for each environment; without `rng`, always the same draws."""
        del observations
        return choose(np.zeros(masks.shape, np.float32), masks, rng or np.random.default_rng(0))


def choose(
    logits: npt.NDArray[np.float32], masks: Bools, rng: np.random.Generator | None
) -> Indices:
    """Choose among the legal actions by their logits.

    Args:
        logits: Shape (n, actions).
        masks: Which actions are legal, one of each line at least, shape (n, actions).
        rng: Draws in proportion to exp(logit), by adding Gumbel noise; None takes the largest.

    Returns:
        Integers, shape (n,).
    """
    scores = logits if rng is None else logits + rng.gumbel(size=logits.shape)
    chosen: Indices = np.where(masks, scores, -np.inf).argmax(axis=1)
    return chosen
