"""Uniform random search: the null hypothesis that every other agent has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schedenv.measure import Result
from schedenv.space import Point, SearchSpace


class RandomAgent:
    """Asks for points drawn uniformly from the space.

    Args:
        space: Where to draw from.
        seed: Of the draws.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._rng = np.random.default_rng(seed)
        self._told = 0

    def ask(self, count: int) -> list[Point]:
        """`count` fresh draws."""
        return [self._space.sample(self._rng) for _ in range(count)]

    def tell(self, results: Sequence[Result]) -> None:
        """Nothing is learned from results."""
        self._told += len(results)

    def state_dict(self) -> dict[str, Any]:
        """How many results were told."""
        return {"told": self._told}
