"""How much each kind of knob matters, learned on other tasks: what a search may know of its own.

Which tile sizes are fast differs from task to task, and a model of times that was fitted on some
families ranks others at random. But how fast the times change along a factor of the outer loops, of
a reduction, along a compute location, is much the same in all of them. So what is carried over is
not a prediction but the scales of the coordinates in which the Gaussian process predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from schedenv.space import Point, SearchSpace

from ..coordinates import ROLES, Coordinates, Floats, Numbers
from ..gaussian_process import GaussianProcess
from .policy import Arrays

SCALES = "model.scales"
"""Their name among the weights of a checkpoint."""

_SUBSETS = 8
_POINTS = 20
_LENGTH = 2.0
_SPREAD = 0.8
_ITERATIONS = 25


@dataclass(frozen=True)
class _Sample:
    coordinates: Floats
    roles: Numbers
    seconds: Floats


class Relevance:
    """Scales under which random measurements of some tasks are the most likely.

    Args:
        rng: Draws the measurements.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._samples: list[_Sample] = []

    def add(self, space: SearchSpace, seconds: Callable[[Sequence[Point]], Floats]) -> None:
        """Look at a task: a few searches' worth of random points.

        Args:
            space: Its points.
            seconds: What they take, infinite for failures.
        """
        coordinates = Coordinates(space)
        for _ in range(_SUBSETS):
            points = list({space.sample(self._rng): None for _ in range(_POINTS)})
            times = seconds(points)
            if np.isfinite(times).sum() > 1:
                sample = _Sample(coordinates.of(points), coordinates.roles(points), times)
                self._samples.append(sample)

    def scales(self) -> Floats:
        """One a role, 1 for what the tasks say nothing of, shape (roles,)."""
        from scipy.optimize import minimize

        if not self._samples:
            return np.ones(len(ROLES))
        found = minimize(
            self._loss, np.zeros(len(ROLES)), method="L-BFGS-B", options={"maxiter": _ITERATIONS}
        )
        scales: Floats = np.exp(found.x)
        return scales

    def _loss(self, logs: Floats) -> float:
        """How unlikely the measurements are, and how far the scales are from 1."""
        factors = np.exp(logs)
        likelihood = sum(
            GaussianProcess(
                sample.coordinates * factors[sample.roles], sample.seconds, (_LENGTH,)
            ).log_likelihood
            for sample in self._samples
        )
        tasks = len(self._samples) / _SUBSETS
        return float(0.5 * (logs**2).sum() / _SPREAD**2 - likelihood / tasks)


def check_scales(weights: Arrays) -> None:
    """Refuse weights without scales that `Relevance.scales` could have given.

    Raises:
        ValueError: They are missing, of another shape, or not all positive numbers.
    """
    scales = weights.get(SCALES)
    if scales is None or scales.shape != (len(ROLES),):
        found = None if scales is None else scales.shape
        raise ValueError(f"{SCALES}: expected an array of {(len(ROLES),)}, got {found}")
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise ValueError(f"{SCALES}: expected positive numbers, got {scales}")
