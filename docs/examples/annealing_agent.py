"""Simulated annealing as an agent: everything that a new agent needs, in one file.

    schedenv tune gmm --agent docs/examples/annealing_agent.py:AnnealingAgent --seconds 30
    schedenv compare --tables all --agents random,docs/examples/annealing_agent.py:AnnealingAgent

Several walkers go from point to neighbouring point. A walker always takes a step to a faster point,
and sometimes one to a slower point: more often if it is only a little slower, and ever more rarely
as the run goes on (Kirkpatrick, Gelatt and Vecchi: "Optimization by Simulated Annealing", 1983).

What an agent must do is in `docs/agents.md`. In short: propose legal points, learn from results,
look at no clock, and ask for the same points again when given the same seed and the same results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from schedenv.measure import Result
from schedenv.space import Point, SearchSpace

WALKERS = 8
"""Walkers side by side: measuring several candidates at once keeps all cores busy."""

DRAWS = 16
"""Random points to choose the walkers' starts from."""

HOTTEST = 0.3
"""Temperature at first: a step to a point exp(0.3) = 1.35 times slower is taken once in e times."""

COOLING = 0.97
"""What the temperature is multiplied by after every result."""


class AnnealingAgent:
    """Simulated annealing with several walkers.

    Args:
        space: The task's points; `sample` draws one, `legal_moves` lists a point's neighbours.
        seed: Of everything random.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        # A generator of our own: the agent must not depend on who else draws random numbers.
        self._rng = np.random.default_rng(seed)
        self._drawn: list[tuple[float, Point]] = []
        self._walkers: list[tuple[float, Point]] = []
        self._asked_by: list[int] = []
        self._known: set[Point] = set()
        self._temperature = HOTTEST

    def ask(self, count: int) -> list[Point]:
        """Starts first, then one step of every walker.

        Args:
            count: How many points are wanted; fewer may be given, and none ends the run.
        """
        if not self._walkers:
            points = [self._space.sample(self._rng) for _ in range(count)]
        else:
            self._asked_by = [number % len(self._walkers) for number in range(min(count, WALKERS))]
            points = [self._step(self._walkers[number][1]) for number in self._asked_by]
        self._known.update(points)
        return points

    def tell(self, results: Sequence[Result]) -> None:
        """Learn from the points last asked for.

        Args:
            results: In the order asked. A candidate that failed has no estimate, and a status
                that says why; it is as slow as can be.
        """
        if not self._walkers:
            self._drawn += [(_log_seconds(result), result.point) for result in results]
            if len(self._drawn) >= DRAWS:
                self._walkers = sorted(self._drawn)[:WALKERS]
            return
        # At the end of the trials there may be fewer results than points.
        for number, result in zip(self._asked_by, results, strict=False):
            here, there = self._walkers[number][0], _log_seconds(result)
            if there <= here or self._rng.random() < math.exp((here - there) / self._temperature):
                self._walkers[number] = (there, result.point)
            self._temperature *= COOLING

    def state_dict(self) -> dict[str, Any]:
        """What has been learned, as values that JSON knows; for inspection."""
        return {
            "temperature": self._temperature,
            "walkers": [[value, str(point)] for value, point in self._walkers if value < math.inf],
        }

    def _step(self, point: Point) -> Point:
        """A neighbour that was not measured yet, if there is one; else a random point."""
        near = [near for near in self._space.neighbours(point) if near not in self._known]
        if not near:
            return self._space.sample(self._rng)
        return near[int(self._rng.integers(len(near)))]


def _log_seconds(result: Result) -> float:
    return math.inf if result.estimate_s is None else math.log(result.estimate_s)
