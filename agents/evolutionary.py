"""Evolutionary search on measured latencies: the general-purpose peer of the learned agents.

MetaSchedule's EvolutionarySearch mutates and ranks thousands of candidates by a cost model between
two rounds of measurements; this agent has no model, so that what it reaches is what selection,
mutation and recombination alone are worth on the same space and the same engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedenv.measure import Result
from schedenv.space import Point, SearchSpace


@dataclass(frozen=True)
class EvolutionaryConfig:
    """Settings of the evolutionary agent.

    Attributes:
        founders: Random points measured before anything is bred.
        parents: The best points known are parents, this many of them.
        tournament: A parent is the best of this many, drawn at random.
        crossover: Share of children that inherit from two parents of one sketch.
        immigrants: Share of random points among the children, so that no basin is final.
        further: Chance that a mutated child is mutated once more.
        tries: Children bred before a random point is taken, when all are known already.
    """

    founders: int = 32
    parents: int = 16
    tournament: int = 3
    crossover: float = 0.25
    immigrants: float = 0.1
    further: float = 0.5
    tries: int = 20


class EvolutionaryAgent:
    """Breeds from the fastest points that were measured.

    Args:
        space: The task's points.
        seed: Of every draw.
        config: Settings.
    """

    def __init__(
        self, space: SearchSpace, seed: int, config: EvolutionaryConfig | None = None
    ) -> None:
        self._space = space
        self._config = config or EvolutionaryConfig()
        self._rng = np.random.default_rng(seed)
        self._seen: set[Point] = set()
        self._parents: list[tuple[float, Point]] = []
        self._founders_left = self._config.founders

    def ask(self, count: int) -> list[Point]:
        """Founders first, children then; points asked for before only when nothing else is left."""
        points: list[Point] = []
        for _ in range(count):
            points.append(self._fresh())
            self._seen.add(points[-1])
        return points

    def tell(self, results: Sequence[Result]) -> None:
        """Keep the fastest as parents; a failure has no children."""
        for result in results:
            if result.ok and result.estimate_s is not None:
                self._parents.append((result.estimate_s, result.point))
        self._parents = sorted(set(self._parents))[: self._config.parents]

    def state_dict(self) -> dict[str, Any]:
        """The parents, fastest first."""
        return {
            "seen": len(self._seen),
            "parents": [[estimate_s, str(point)] for estimate_s, point in self._parents],
        }

    def _fresh(self) -> Point:
        """A point not asked for before, if one is found."""
        for _ in range(self._config.tries):
            point = self._child()
            if point not in self._seen:
                return point
        return self._space.sample(self._rng)

    def _child(self) -> Point:
        config = self._config
        if self._founders_left > 0 or not self._parents:
            self._founders_left -= 1
            return self._space.sample(self._rng)
        kind = self._rng.random()
        if kind < config.immigrants:
            return self._space.sample(self._rng)
        if kind < config.immigrants + config.crossover:
            child = self._crossed(self._chosen(), self._chosen())
            if child is not None:
                return child
        return self._mutated(self._chosen())

    def _chosen(self) -> Point:
        """The best of a few parents; they are kept in order of their latency."""
        draws = self._rng.integers(len(self._parents), size=self._config.tournament)
        return self._parents[int(draws.min())][1]

    def _mutated(self, point: Point) -> Point:
        """A few legal moves away."""
        while True:
            moves = self._space.legal_moves(point)
            if not moves:
                return point
            point = moves[self._rng.integers(len(moves))].apply(point)
            if self._rng.random() >= self._config.further:
                return point

    def _crossed(self, one: Point, other: Point) -> Point | None:
        """Each knob from either parent; None if the parents, or their knobs, do not fit together.

        Knobs are inherited whole, so a tiling's product stays what it is.
        """
        if one == other or one.sketch != other.sketch:
            return None
        values = list(one.values)
        for knob in self._space.sketches[one.sketch].knobs:
            if self._rng.random() < 0.5:
                slots = slice(knob.start, knob.start + knob.width)
                values[slots] = other.values[slots]
        child = Point(one.sketch, tuple(values))
        return child if self._space.is_legal(child) else None
