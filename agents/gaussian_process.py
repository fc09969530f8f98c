"""A Gaussian process over log times, fitted anew after every batch.

With tens of measurements it knows where it knows nothing, which a model of boosted trees does not;
fitting and asking take milliseconds (Rasmussen and Williams, "Gaussian Processes for Machine
Learning", algorithm 2.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.spatial.distance import cdist

Floats = npt.NDArray[np.float64]

LENGTHS = (1.0, 1.5, 2.0, 3.0, 4.5)
"""Length scales tried, in halvings of a tile factor."""

NOISE = 0.05
"""Standard deviation of a measured log time."""

MOST = 384
"""Measurements that are kept: the fastest ones."""

WORST = 2.5
"""Log times count as at most that much above the best: how bad the hopeless are teaches nothing
about the good."""

_LEAST_VARIANCE = 1e-3

_UNMEASURED_VARIANCE = 0.16
"""How far off what is expected may be before anything is measured, in log seconds squared."""

_UNMEASURED_WEIGHT = 8
"""So many measurements say as much about it."""

_UNMEASURED_LENGTH = 2.0
"""The length scale until measurements say which of `LENGTHS` is the likeliest."""


class GaussianProcess:
    """Log seconds of points, with how sure that is.

    Args:
        features: Of the measured points, shape (n, width).
        seconds: Their times, shape (n,); infinite for failures, which count as the slowest.
        lengths: Length scales tried; the likeliest is taken.
        expected: Log seconds that were expected of the points, up to a constant, shape (n,): the
            process is then of what the times differ by, and what it predicts as well. Nothing need
            have been measured with it. None for nothing.

    Attributes:
        log_likelihood: Of the times, but for a constant.
    """

    def __init__(
        self,
        features: Floats,
        seconds: Floats,
        lengths: Sequence[float] = LENGTHS,
        expected: Floats | None = None,
    ) -> None:
        order = np.argsort(seconds, kind="stable")[:MOST]
        features, logs = features[order], np.log(seconds[order])
        self._features = features
        if not len(order):
            self._mean, self._variance = 0.0, _UNMEASURED_VARIANCE
            self.log_likelihood, self._length = 0.0, _UNMEASURED_LENGTH
            self._cholesky, self._weights = np.zeros((0, 0)), np.zeros(0)
            return
        logs = np.minimum(logs, logs.min() + WORST)
        if expected is not None:
            logs = logs - expected[order]
        self._mean = float(logs.mean())
        self._variance = max(float(logs.var()), _LEAST_VARIANCE)
        if expected is not None:
            told = len(order) / (len(order) + _UNMEASURED_WEIGHT)
            self._variance = told * self._variance + (1 - told) * _UNMEASURED_VARIANCE
        rest = logs - self._mean
        squares = cdist(features, features, "sqeuclidean")
        likelihoods = []
        for length in lengths:
            root = self._root(squares, length)
            weights = cho_solve((root, True), rest)
            fit = float(-0.5 * rest @ weights - np.log(np.diag(root)).sum())
            likelihoods.append((fit, length, root, weights))
        best = max(likelihoods, key=lambda item: item[0])
        self.log_likelihood, self._length, self._cholesky, self._weights = best

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the log seconds, each of shape (n,)."""
        cross = self._covariance(self._features, features)
        mean = self._mean + self._weights @ cross
        explained = self._explained(cross)
        variance = self._variance - (explained**2).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def choose(
        self, features: Floats, count: int, optimism: float, price: Floats | None = None
    ) -> list[int]:
        """The most promising points that do not repeat each other.

        One after the other: once a point is chosen, what its measurement would tell about the
        others is taken from their uncertainty (Desautels et al., "Parallelizing Exploration-
        Exploitation Tradeoffs in Gaussian Process Bandit Optimization", JMLR 2014).

        Args:
            features: Of the candidates, shape (n, width).
            count: How many to choose.
            optimism: Standard deviations subtracted from the mean.
            price: Added to each candidate's log seconds, shape (n,); None for nothing.
        """
        cross = self._covariance(self._features, features)
        mean = self._mean + self._weights @ cross + (0.0 if price is None else price)
        explained = self._explained(cross)
        covariance = self._covariance(features, features) - explained.T @ explained
        chosen: list[int] = []
        for _ in range(min(count, len(features))):
            deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
            scores = mean - optimism * deviation
            scores[chosen] = np.inf
            best = int(np.argmin(scores))
            chosen.append(best)
            column = covariance[:, best]
            covariance = covariance - np.outer(column, column) / (column[best] + NOISE**2)
        return chosen

    def _root(self, squares: Floats, length: float) -> Floats:
        covariance = self._variance * np.exp(-0.5 * squares / length**2)
        covariance[np.diag_indices_from(covariance)] += NOISE**2
        root: Floats = cholesky(covariance, lower=True, check_finite=False)
        return root

    def _explained(self, cross: Floats) -> Floats:
        """What the measured points say of others, whitened."""
        if not len(cross):
            return cross
        explained: Floats = solve_triangular(self._cholesky, cross, lower=True, check_finite=False)
        return explained

    def _covariance(self, one: Floats, other: Floats) -> Floats:
        squares = cdist(one, other, "sqeuclidean")
        covariance: Floats = self._variance * np.exp(-0.5 * squares / self._length**2)
        return covariance
