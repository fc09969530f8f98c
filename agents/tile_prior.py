"""What tiles foretell of a program's time, learned from other tasks before any search.

A model of a task's own measurements knows nothing until some dozens are there. What makes one
schedule of an operator faster than another (registers that are full and not spilled, whole vectors,
tiles that fit a cache, as many chunks as threads) is much the same for other operators and shapes,
and so is learned once (`runs/tile_prior.py`), and corrected by what a search then measures. After
Tenset (Zheng et al., NeurIPS 2021) and Pruner, which learn from lowered programs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources

import numpy as np
import xgboost

from schedenv.errors import CorruptModelError
from schedenv.space import Point, SearchSpace, Space

from .tile_features import Floats, TileFeatures

SHIPPED = "tile_prior.ubj"
"""In this package: what was learned from the tasks named in `runs/tile_prior.py`."""

_SETTINGS = {
    "max_depth": 6,
    "eta": 0.08,
    "subsample": 0.7,
    "colsample_bynode": 0.4,
    "min_child_weight": 5,
    "nthread": 1,
    "seed": 0,
}
_ROUNDS = 200
_BEST_QUANTILE = 0.005
_RANGE = (-0.2, math.log(6))


class TilePrior:
    """The log seconds that are expected of a space's points, up to a constant of the space.

    Args:
        space: The points.
        weights: What `fit` returned; None for the shipped ones.

    Raises:
        CorruptModelError: The weights are of other features.
    """

    def __init__(self, space: Space, weights: bytes | None = None) -> None:
        self.features = TileFeatures(space)
        if weights is None:
            weights = resources.files(__package__).joinpath(SHIPPED).read_bytes()
        self._booster = xgboost.Booster()
        self._booster.load_model(bytearray(weights))
        self._booster.set_param("nthread", 1)
        learned = tuple(self._booster.feature_names or ())
        if self.features.names and learned != self.features.names:
            raise CorruptModelError(
                f"the prior was learned from {len(learned)} features, "
                f"{len(self.features.names)} are known, not all the same; fit it again with "
                "python runs/tile_prior.py"
            )

    def expect(self, points: Sequence[Point]) -> Floats:
        """Shape (points,); equal for all points of a space that tiles no reduction."""
        return self.of_features(self.features.of(points))

    def of_features(self, features: Floats) -> Floats:
        """`expect`, of features that are known."""
        if not features.shape[1]:
            return np.zeros(len(features))
        data = xgboost.DMatrix(features, feature_names=list(self.features.names))
        return np.asarray(self._booster.predict(data), np.float64)


def prior_of(space: SearchSpace) -> TilePrior | None:
    """The shipped prior, if it has something to say of a space.

    It has not where no reduction is tiled, and none of a part of a space such as a recorded table,
    which does not hold the program.
    """
    if not isinstance(space, Space):
        return None
    prior = TilePrior(space)
    return prior if prior.features.names else None


def fit(tasks: Sequence[tuple[Floats, Floats]], names: Sequence[str]) -> bytes:
    """Learn a prior.

    Args:
        tasks: Of each task the features of some points and their log seconds.
        names: Of the features.

    Returns:
        Weights, for `TilePrior`.
    """
    targets, weights = [], []
    for _, log_s in tasks:
        best = np.quantile(log_s, _BEST_QUANTILE)
        targets.append(np.clip(log_s - best, *_RANGE))
        # Every task counts alike.
        weights.append(np.full(len(log_s), 1.0 / len(log_s)))
    weight = np.concatenate(weights)
    data = xgboost.DMatrix(
        np.concatenate([features for features, _ in tasks]),
        label=np.concatenate(targets),
        weight=weight / weight.mean(),
        feature_names=list(names),
    )
    return bytes(xgboost.train(_SETTINGS, data, _ROUNDS).save_raw("ubj"))
