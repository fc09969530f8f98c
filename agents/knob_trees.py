"""Boosted trees on what is known of points from their knobs: a model that is fitted in no time.

In ten searches of seven tasks trees ranked what was measured next better than a Gaussian process on
the knobs' coordinates did, at every moment looked at (`runs/knob_models.md`).
"""

from __future__ import annotations

import numpy as np

from schedenv.costmodel.trees import load_xgboost

from .knob_features import Floats

_SETTINGS = {
    "max_depth": 8,
    "eta": 0.1,
    "subsample": 0.8,
    "colsample_bynode": 0.3,
    "min_child_weight": 1,
    # More threads would spin beside the kernels that are timed.
    "nthread": 1,
}


class KnobTrees:
    """One number a point, learned from points where it is known (Chen and Guestrin, KDD 2016).

    Args:
        features: Of the points where it is known, shape (n, width).
        targets: The number, shape (n,); finite.
        seed: Of the parts of points and features that each tree sees.
        rounds: Trees.

    Raises:
        MissingExtraError: xgboost is missing.
    """

    def __init__(self, features: Floats, targets: Floats, seed: int, rounds: int = 100) -> None:
        self._xgboost = load_xgboost("a model of knobs")
        data = self._xgboost.DMatrix(features, label=targets)
        self._booster = self._xgboost.train(_SETTINGS | {"seed": seed}, data, rounds)

    def predict(self, features: Floats) -> Floats:
        """The number at other points, shape (n,)."""
        return np.asarray(self._booster.predict(self._xgboost.DMatrix(features)), np.float64)
