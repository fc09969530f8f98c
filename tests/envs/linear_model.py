"""The simplest cost model: a weight for the logarithm of every slot."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schedenv.space import Point, SearchSpace
from schedenv.tasks import Task

MOST_SLOTS = 128


class LinearModel:
    """Scores are weighted sums of log2(2 + |value|)."""

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = np.array(weights, np.float32)

    @classmethod
    def drawn(cls, seed: int) -> "LinearModel":
        return cls(np.random.default_rng(seed).normal(0, 0.1, MOST_SLOTS).tolist())

    @classmethod
    def load(cls, folder: Path) -> "LinearModel":
        return cls(json.loads((folder / "model.json").read_text()))

    def save(self, folder: Path) -> None:
        (folder / "model.json").write_text(json.dumps(self._weights.tolist()))

    def predict(
        self, task: Task, space: SearchSpace, points: Sequence[Point]
    ) -> npt.NDArray[np.float32]:
        rows = np.log2(2 + np.abs(space.encode(points))).astype(np.float32)
        return rows @ self._weights[: rows.shape[1]]
