"""Boosted trees on what is known of points from their knobs: a model that is fitted in no time.

In ten searches of seven tasks trees ranked what was measured next better than a Gaussian process on
the knobs' coordinates did, at every moment looked at (`runs/knob_models.md`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xgboost

from .knob_features import Floats

_SETTINGS = {
    "max_depth": 6,
    # Tiles have few sizes; fits are what an agent that asks for a few points at a time waits for.
    "max_bin": 32,
    "eta": 0.1,
    "subsample": 0.8,
    "colsample_bynode": 0.3,
    "min_child_weight": 1,
    # More threads would spin beside the kernels that are timed.
    "nthread": 1,
}

_CORRECTING = {"reg_lambda": 20}
"""What is set otherwise where trees correct what was expected: a few points are no reason to."""


class KnobTrees:
    """One number a point, learned from points where it is known (Chen and Guestrin, KDD 2016).

    Args:
        features: Of the points where it is known, shape (n, width).
        targets: The number, shape (n,); finite.
        seed: Of the parts of points and features that each tree sees.
        rounds: Trees.
        expected: What is expected of those points before anything is learned, up to a number that
            is the same for all, shape (n,); None for nothing.
    """

    def __init__(
        self,
        features: Floats,
        targets: Floats,
        seed: int,
        rounds: int = 100,
        expected: Floats | None = None,
    ) -> None:
        self._shift = 0.0 if expected is None else float(np.median(targets - expected))
        data = self._matrix(features, expected, targets)
        settings = _SETTINGS if expected is None else _SETTINGS | _CORRECTING
        self._booster = xgboost.train(settings | {"seed": seed}, data, rounds)

    def predict(self, features: Floats, expected: Floats | None = None) -> Floats:
        """The number at other points, shape (n,).

        Args:
            features: Of those points.
            expected: What was expected of them; None if nothing was of the others.
        """
        return np.asarray(self._booster.predict(self._matrix(features, expected)), np.float64)

    def _matrix(
        self, features: Floats, expected: Floats | None, targets: Floats | None = None
    ) -> Any:
        data = xgboost.DMatrix(features, label=targets)
        if expected is not None:
            data.set_base_margin(expected + self._shift)
        return data
