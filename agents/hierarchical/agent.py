"""The hierarchical agent, after HARL, whose code is not public.

Zhang et al., "HARL: Hierarchical Adaptive Reinforcement Learning Based Auto Scheduler for Neural
Networks" (ICPP 2022). Before every batch a bandit picks a sketch, and tracks walk through the
space, moved by a policy that learns from predicted times; of what they saw, the most promising
points are proposed. What is then measured corrects the predictions. Choosing among tasks, HARL's
first level, belongs to the scheduler of tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from schedenv.measure import Result
from schedenv.space import Point, SearchSpace
from schedenv.space.draft import Drafter

from ..coordinates import Coordinates, Floats
from ..forecast import Forecast
from ..tile_prior import TilePrior, prior_of
from .bandit import SlidingWindowBandit
from .config import PAPER, PRIOR, HierarchicalConfig
from .encoding import Encoding
from .policy import Arrays, Policy
from .relevance import SCALES
from .tracks import Tracks, Walk

_SHORTLIST = 256
_TRIES = 30
_CHEAPEST_S = 1e-3
_REMEMBERED = 1 << 17


class HierarchicalAgent:
    """Bandit over sketches, policy over edits, model of what was measured.

    Args:
        space: The task's points.
        seed: Of everything random.
        config: Settings.
        weights: What was learned on other tasks: the policy's weights, with which it goes on
            learning, and under `SCALES` how much each kind of knob matters. Either may be missing;
            None for neither.
        tracks: Walks through the space; None for those of the configuration.
        prior: What is expected before anything is measured, and corrected by what is; None for
            nothing.

    Raises:
        InstallError: torch is missing.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        config: HierarchicalConfig | None = None,
        weights: Arrays | None = None,
        tracks: Tracks | None = None,
        prior: TilePrior | None = None,
    ) -> None:
        # The threads of a larger BLAS pool would spin beside the kernels that are timed.
        self._pools = ThreadpoolController()
        self._space = space
        self._config = config = config or HierarchicalConfig()
        self._rng = np.random.default_rng(seed)
        self._drafter = Drafter(space)
        scales = None if weights is None else weights.get(SCALES)
        self._coordinates = Coordinates(space, scales)
        self._bandit = SlidingWindowBandit(len(space.sketches), config.exploration, config.window)
        self._tracks = tracks or Tracks(space, Encoding(space), config)
        self._policy = Policy(config, seed) if config.learn_policy and config.model else None
        if self._policy is not None and weights is not None and weights.keys() - {SCALES}:
            self._policy.load(weights)
        self._prior = prior
        self._expected: dict[Point, float] = {}
        self._seconds: dict[Point, float] = {}
        self._costs: dict[Point, float] = {}
        self._asked: set[Point] = set()
        self._arm: int | None = None
        self._ended_early = 0

    def ask(self, count: int) -> list[Point]:
        """Random points first; then the best of what the tracks saw."""
        # The threads of a larger pool would spin beside the kernels that are timed.
        with self._pools.limit(limits=1):
            return self._choose(count)

    def _choose(self, count: int) -> list[Point]:
        config = self._config
        model = self._fit()
        self._arm = None
        if len(self._asked) < config.first or (config.model and model is None):
            points = self._fresh([], min(count, config.first))
        else:
            self._arm = self._choose_sketch()
            score = None if model is None else partial(model.optimistic, optimism=config.optimism)
            walk = self._tracks.walk(self._starts(self._arm), score, self._policy, self._rng)
            self._ended_early += walk.ended_early
            points = self._fresh(self._best(walk, model), min(count, config.batch))
            if self._policy is not None and walk.steps is not None:
                self._policy.learn(walk.steps)
        self._asked.update(points)
        return points

    def tell(self, results: Sequence[Result]) -> None:
        """Remember the times; reward the sketch by how close its best came to the best of all."""
        for result in results:
            self._costs[result.point] = max(result.phases.total_s, _CHEAPEST_S)
            self._seconds[result.point] = (
                result.estimate_s if result.ok and result.estimate_s is not None else np.inf
            )
        if self._arm is None:
            return
        reached_s = min(
            (self._seconds[r.point] for r in results if r.point.sketch == self._arm),
            default=np.inf,
        )
        best_s = min(self._seconds.values(), default=np.inf)
        self._bandit.reward(self._arm, best_s / reached_s if np.isfinite(reached_s) else 0.0)

    def state_dict(self) -> dict[str, Any]:
        """How much was measured, the best of it, and how many tracks were stopped."""
        ranked = self._ranked()
        return {
            "measured": len(self._seconds),
            "best": str(ranked[0]) if ranked else None,
            "tracks_ended_early": self._ended_early,
        }

    def _fit(self) -> Forecast | None:
        """A model of what was measured; None if it is switched off or too little is known."""
        if not self._config.model:
            return None
        expect = None if self._prior is None else partial(self._expect, self._prior)
        return Forecast.of(self._coordinates, self._seconds, expect)

    def _expect(self, prior: TilePrior, points: Sequence[Point]) -> Floats:
        """What a prior expects, remembered: tracks pass by the same points again and again."""
        if len(self._expected) > _REMEMBERED:
            self._expected.clear()
        new = [point for point in points if point not in self._expected]
        if new:
            self._expected |= zip(new, prior.expect(new).tolist(), strict=True)
        return np.array([self._expected[point] for point in points])

    def _choose_sketch(self) -> int:
        if self._config.sketch_bandit:
            return self._bandit.choose()
        return int(self._rng.integers(len(self._space.sketches)))

    def _starts(self, sketch: int) -> list[Point]:
        """The best known points, and random ones of the sketch."""
        config = self._config
        elites = self._ranked()[: round(config.elites * config.tracks)]
        return [*elites, *(self._sample(sketch) for _ in range(config.tracks - len(elites)))]

    def _best(self, walk: Walk, model: Forecast | None) -> list[Point]:
        """What to measure next of a walk, the most promising first."""
        config = self._config
        seen = walk.seen if config.score_neighbours and model is not None else walk.visited
        fresh = [point for point in seen if point not in self._asked]
        if model is None or not fresh:
            return fresh
        price = config.thrift * self._log_costs(fresh)
        scores = model.optimistic(fresh, config.optimism) + price
        shortlist = np.argsort(scores, kind="stable")[:_SHORTLIST]
        points = [fresh[index] for index in shortlist]
        return model.choose(points, config.batch, config.optimism, price[shortlist])

    def _log_costs(self, points: Sequence[Point]) -> Floats:
        """Log seconds that building, verifying and timing each candidate may take."""
        if not self._config.thrift:
            return np.zeros(len(points))
        return Forecast(self._coordinates, self._costs).predict(points)[0]

    def _fresh(self, points: Sequence[Point], count: int) -> list[Point]:
        """The first `count` points, filled up with random ones not asked for before."""
        found = dict.fromkeys(points[:count])
        for _ in range(_TRIES * count):
            if len(found) >= count:
                break
            point = self._draw()
            if point not in self._asked:
                found[point] = None
        return list(found) or [self._space.sample(self._rng)]

    def _draw(self) -> Point:
        """A random point, drafted or uniform."""
        if self._config.drafted and self._rng.random() < self._config.drafted:
            return self._drafter.sample(self._rng, self._asked)
        return self._space.sample(self._rng)

    def _sample(self, sketch: int) -> Point:
        """A random point, of the sketch if one is found soon."""
        for _ in range(_TRIES):
            point = self._draw()
            if point.sketch == sketch:
                break
        return point

    def _ranked(self) -> list[Point]:
        """The points that could be timed, fastest first."""
        timed = [(second, point) for point, second in self._seconds.items() if np.isfinite(second)]
        return [point for _, point in sorted(timed)]


class PaperAgent(HierarchicalAgent):
    """HARL's form (`PAPER`), for comparison.

    Args:
        space: The task's points.
        seed: Of everything random.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(space, seed, PAPER)


class PriorAgent(HierarchicalAgent):
    """Its model begins with what other tasks have taught (`TilePrior`), so that tracks need not.

    Where the prior has nothing to say it is `HierarchicalAgent`.

    Args:
        space: The task's points.
        seed: Of everything random.

    Raises:
        InstallError: torch is missing.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        prior = prior_of(space)
        super().__init__(space, seed, None if prior is None else PRIOR, prior=prior)
