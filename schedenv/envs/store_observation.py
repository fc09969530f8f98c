"""TVM's features of the scheduled program as part of an observation."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from schedenv import hardware as hw
from schedenv.envs.layout import Layout
from schedenv.envs.problems import Problem
from schedenv.errors import ConstraintError, InputError
from schedenv.space import Point, Space
from schedenv.tasks import resolve
from schedenv.tvm_features import STORE_FEATURES, per_store_features

_SCALE = np.float32(1 / 64)
"""TVM scales features by a slog2, whose largest values are logarithms of 64-bit numbers."""

_KEPT = 1 << 12


class StoreObservation:
    """Replays a point in TVM and extracts MetaSchedule's features of each of its stores.

    Keys, both float32:

    - `stores`, shape (stores * 164,), within [-1, 1]: the features of each buffer store of the
      program, one store after the other (`reshape(-1, 164)` has one a line), as TVM scales them,
      / 64 and clipped; 0 beyond the last store. Source: TVM's
      src/s_tir/meta_schedule/feature_extractor/per_store_feature.cc.
    - `store_mask`, shape (stores,), within [0, 1]: 1 for a store; all 0 for a point that TVM
      refuses.

    A point takes about two milliseconds; the last 4096 are remembered.

    Args:
        layout: Sizes of the spaces; `layout.stores` is the most stores that a program may have.

    Example:
        >>> import gymnasium, schedenv
        >>> env = gymnasium.make(
        ...     "schedenv/Edit-v0", reward="recorded", table="gmm", observation=["knobs", "stores"]
        ... )
        >>> seen, _ = env.reset(seed=0)
        >>> {key: value.shape for key, value in seen.items() if key.startswith("store")}
        {'stores': (2624,), 'store_mask': (16,)}
        >>> 1 <= seen["store_mask"].sum() <= 3
        np.True_
        >>> env.close()
    """

    def __init__(self, layout: Layout) -> None:
        self._most = layout.stores
        self._wholes: dict[str, Space] = {}
        self._features = lru_cache(_KEPT)(self._extract)
        self._problems: dict[str, Problem] = {}

    @property
    def space(self) -> dict[str, spaces.Space[Any]]:
        """The Gymnasium spaces of the keys."""
        return {
            "stores": spaces.Box(-1.0, 1.0, (self._most * STORE_FEATURES,), np.float32),
            "store_mask": spaces.Box(0.0, 1.0, (self._most,), np.float32),
        }

    def build(self, problem: Problem, point: Point) -> dict[str, npt.NDArray[np.float32]]:
        """The features of a point, new arrays.

        Raises:
            InputError: The program has more stores than the layout holds.
        """
        self._problems[problem.name] = problem
        found = self._features(problem.name, point)
        if len(found) > self._most:
            raise InputError(
                f"{point} of {problem.task.name} has {len(found)} stores, the environment's spaces "
                f"hold {self._most}; raise it with layout={{'stores': {len(found)}}}"
            )
        stores = np.zeros((self._most, STORE_FEATURES), np.float32)
        mask = np.zeros(self._most, np.float32)
        stores[: len(found)] = np.clip(found * _SCALE, -1.0, 1.0)
        mask[: len(found)] = 1.0
        return {"stores": stores.ravel(), "store_mask": mask}

    def _extract(self, name: str, point: Point) -> npt.NDArray[np.float32]:
        problem = self._problems[name]
        whole = self._whole(problem)
        try:
            schedule = whole.apply(point)
        except ConstraintError:
            return np.zeros((0, STORE_FEATURES), np.float32)
        (found,) = per_store_features(whole.mod, hw.target(problem.hardware), [schedule])
        return found

    def _whole(self, problem: Problem) -> Space:
        """The space that can be applied: a recorded table knows a part of it only."""
        if isinstance(problem.space, Space):
            return problem.space
        if problem.name not in self._wholes:
            self._wholes[problem.name] = Space(resolve(problem.task.spec).mod, problem.hardware)
        return self._wholes[problem.name]
