"""Gradient-boosted trees on TVM's per-store features: MetaSchedule's formulation.

After MetaSchedule's XGBModel (TVM, python/tvm/s_tir/meta_schedule/cost_model/xgb_model.py) and
Zheng et al., Ansor (OSDI 2020): every store of a program is scored by the trees, a program's score
is the sum over its stores, the target is the throughput over the best of the task, and the squared
error of a program is weighted by its target, so that fast programs matter most. Differences, and
why: rounds end when points of the training tasks that were put aside get no better, where
MetaSchedule watches the error of the training points themselves, which always falls; and scores
start from 0, not from half the target for each store, which would reward programs of many stores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from schedenv import hardware as hw
from schedenv.costmodel.data import TaskData, TrainingData, split_points
from schedenv.costmodel.model import REFUSED_SCORE, CostModel, Setting
from schedenv.errors import ConstraintError, CorruptModelError
from schedenv.hardware import Hardware
from schedenv.space import Point, SearchSpace, Space
from schedenv.tasks import Task
from schedenv.tvm_features import STORE_FEATURES, per_store_features

Floats = npt.NDArray[np.float32]

_FLOOR = 1e-3
"""Throughput, in parts of the best, below which the score no longer follows the logarithm."""

_ASIDE = 0.15
_PATIENCE = 50
_SPACES_KEPT = 8
_ROWS_A_THREAD = 20_000


class TreeModel(CostModel):
    """Gradient-boosted trees on MetaSchedule's 164 features a store.

    A point costs a replay, its postprocessors and TVM's feature extraction: some milliseconds.
    Failures have a target of 0 and thereby, as in MetaSchedule, no weight.

    Args:
        seed: Of the points put aside in training.
        max_depth: Deepest tree; MetaSchedule's value, as the following.
        eta: Learning rate.
        gamma: Least gain of a split.
        rounds: Most trees; MetaSchedule allows 10,000 and stops early too.
    """

    kind: ClassVar[str] = "trees"
    feature_version: ClassVar[int] = 1
    weights_file: ClassVar[str] = "trees.ubj"
    library: ClassVar[str] = "xgboost"

    def __init__(
        self,
        seed: int = 0,
        *,
        max_depth: int = 10,
        eta: float = 0.2,
        gamma: float = 0.001,
        rounds: int = 2000,
    ) -> None:
        super().__init__(seed)
        self._max_depth, self._eta, self._gamma, self._rounds = max_depth, eta, gamma, rounds
        self._booster: Any = None
        self._spaces: dict[str, Space] = {}

    def _fit(self, data: TrainingData) -> None:
        import xgboost

        rng = np.random.default_rng(self.seed)
        parts = [split_points(entry, _ASIDE, rng) for entry in data.tasks]
        self._spaces.clear()
        learned = self._pack([part for part, _ in parts], data.hardware)
        aside = self._pack([part for _, part in parts], data.hardware)
        settings = {
            "max_depth": self._max_depth,
            "eta": self._eta,
            "gamma": self._gamma,
            "min_child_weight": 0,
            "base_score": 0.0,
            "seed": self.seed,
            # On few rows more threads cost more than they bring.
            "nthread": min(data.hardware.cores, 1 + len(learned.rows) // _ROWS_A_THREAD),
            "disable_default_eval_metric": 1,
        }
        self._booster = xgboost.train(
            settings,
            learned.matrix(xgboost),
            num_boost_round=self._rounds,
            obj=lambda scores, _: learned.gradient(scores),
            evals=[(aside.matrix(xgboost), "aside")],
            custom_metric=lambda scores, _: ("error", aside.error(scores)),
            early_stopping_rounds=_PATIENCE,
            verbose_eval=False,
        )
        best = int(self._booster.best_iteration)
        self._booster = self._booster[: best + 1]

    def _predict(
        self, task: Task, space: SearchSpace, points: Sequence[Point]
    ) -> npt.NDArray[np.float32]:
        import xgboost

        stores = self._features(task, space, points, self.fitted().hardware)
        pack = _Pack(stores, np.zeros(len(points), np.float32))
        if not pack.rows.size:
            return np.full(len(points), REFUSED_SCORE, np.float32)
        leaves = self._booster.predict(pack.matrix(xgboost), output_margin=True)
        scores = log_throughput(pack.sums(leaves))
        scores[[not len(rows) for rows in stores]] = REFUSED_SCORE
        return scores

    def _pack(self, tasks: Sequence[TaskData], hardware: Hardware) -> _Pack:
        stores: list[Floats] = []
        for entry in tasks:
            stores += self._features(entry.task, entry.space, entry.points, hardware)
        return _Pack(stores, np.concatenate([entry.throughputs for entry in tasks]))

    def _features(
        self, task: Task, space: SearchSpace, points: Sequence[Point], hardware: Hardware
    ) -> list[Floats]:
        """Features of each point, shape (stores, 164); (0, 164) if TVM refuses the point."""
        whole = space if isinstance(space, Space) else self._whole(task, hardware)
        schedules, places = [], []
        for place, point in enumerate(points):
            try:
                schedules.append(whole.apply(point))
            except ConstraintError:
                continue
            places.append(place)
        stores = [np.zeros((0, STORE_FEATURES), np.float32)] * len(points)
        found = per_store_features(whole.mod, hw.target(hardware), schedules)
        for place, features in zip(places, found, strict=True):
            stores[place] = features
        return stores

    def _whole(self, task: Task, hardware: Hardware) -> Space:
        """The space that a sub-space is a part of; only a whole one can be applied."""
        if task.content_hash not in self._spaces:
            while len(self._spaces) >= _SPACES_KEPT:
                del self._spaces[next(iter(self._spaces))]
            self._spaces[task.content_hash] = Space(task.mod, hardware)
        return self._spaces[task.content_hash]

    def _weights(self) -> bytes:
        return bytes(self._booster.save_raw("ubj"))

    def _restore(self, weights: bytes) -> None:
        import xgboost

        self._booster = xgboost.Booster()
        try:
            self._booster.load_model(bytearray(weights))
        except xgboost.core.XGBoostError as error:
            raise ValueError(str(error)) from None
        if self._booster.num_features() != STORE_FEATURES:
            raise CorruptModelError(
                f"the trees read {self._booster.num_features()} features, expected "
                f"{STORE_FEATURES}; fit the model again with schedenv fit"
            )

    def _settings(self) -> Mapping[str, Setting]:
        return {
            "max_depth": self._max_depth,
            "eta": self._eta,
            "gamma": self._gamma,
            "rounds": int(self._booster.num_boosted_rounds()),
        }


class _Pack:
    """Programs as rows of stores, with the sums that make one prediction a program.

    Attributes:
        rows: Features, shape (stores of all programs, 164).
        targets: Throughput of each program, shape (programs,).
    """

    def __init__(self, stores: Sequence[Floats], targets: Floats) -> None:
        self.rows = np.concatenate(stores)
        self.targets = targets
        self._program = np.repeat(np.arange(len(stores)), [len(rows) for rows in stores])

    def matrix(self, xgboost: Any) -> Any:
        """The rows as xgboost wants them."""
        return xgboost.DMatrix(self.rows, label=self.targets[self._program])

    def sums(self, scores: Floats) -> Floats:
        """One prediction a program, shape (programs,)."""
        return np.bincount(self._program, weights=scores, minlength=len(self.targets)).astype(
            np.float32
        )

    def gradient(self, scores: Floats) -> tuple[Floats, Floats]:
        """Gradient and Hessian of the weighted squared error, by store."""
        weights = self.targets[self._program]
        error = (self.sums(scores) - self.targets)[self._program]
        return error * weights, weights

    def error(self, scores: Floats) -> float:
        """Root of the weighted mean squared error of the programs."""
        squares = (self.sums(scores) - self.targets) ** 2
        return float(np.sqrt(np.average(squares, weights=self.targets)))


def log_throughput(throughputs: Floats) -> Floats:
    """Natural logarithm, continued below a floor by its tangent so that order is kept."""
    above = np.log(np.maximum(throughputs, _FLOOR))
    below = np.minimum(throughputs - _FLOOR, 0.0) / _FLOOR
    scores: Floats = (above + np.maximum(below, REFUSED_SCORE / 2)).astype(np.float32)
    return scores
