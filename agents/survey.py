"""Where in the whole space to measure next: the most expected improvement a second.

A descent looks at all neighbours of one point. Once none is better, most of what it could go on
with is far from good, and the next descent begins where this one ended. A survey has a model that
is quick enough to judge thousands of points: neighbours of the best ones, neighbours of those that
look best among them, and so on, and fresh draws.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from schedenv.measure import Result
from schedenv.space import Point, SearchSpace

from .gaussian_process import WORST
from .knob_features import Floats, KnobFeatures
from .knob_trees import KnobTrees
from .tile_prior import TilePrior

_QUICKEST_S = 0.02
_COST_ROUNDS = 50
_ERRORS = 60
_FEWEST_ERRORS = 8
_ERROR_RANGE = (0.05, 0.6)
_UNKNOWN_ERROR = 0.5
_WORST_ERROR = 1.5
_LEAST_IMPROVEMENT = 1e-30
_NEIGHBOURHOODS_KEPT = 4096
_DESCRIPTIONS_KEPT = 1 << 15
_STALE = 32
"""A fit serves the order of neighbours until there is one measurement more for so many it knows."""

_FIRST_ALIKE = (1, 2, 1)
"""First points of the same innermost spatial tile, of the same inner reductions, of both."""


@dataclass(frozen=True)
class SurveyConfig:
    """Settings of a survey.

    Attributes:
        elites: So many of the fastest points, and as many of the fastest quarter, drawn at random,
            are those whose neighbours are looked at.
        steps: Neighbours of neighbours are looked at up to so many moves from a measured point.
        beam: Points of each step whose neighbours the next one looks at.
        fresh: Draws from the whole space that are looked at.
        fresh_share: Of what is proposed, the part that is from those draws.
        first: Draws that are looked at before anything is measured, if there is a prior.
        alike: Of what is proposed, the part that may have the same innermost tile along spatial
            axes; half of it may have the same along all axes.
    """

    elites: int = 10
    steps: int = 3
    beam: int = 6
    fresh: int = 48
    fresh_share: float = 0.125
    first: int = 512
    alike: float = 1.0


@dataclass(frozen=True)
class _Described:
    """What models are told of points: features, and what the prior, if there is one, expects."""

    features: Floats
    expected: Floats | None


class Survey:
    """Proposes points by what trees expect of all that was measured.

    Args:
        space: The points.
        rng: Draws what is drawn.
        draw: Draws a fresh point.
        config: Settings.
        prior: What is expected before anything is measured, and corrected by what is; None for
            nothing.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        draw: Callable[[], Point],
        config: SurveyConfig | None = None,
        prior: TilePrior | None = None,
    ) -> None:
        self._space, self._rng, self._draw = space, rng, draw
        self._config = config or SurveyConfig()
        self._features, self._prior = KnobFeatures(space), prior
        self._neighbours: dict[Point, list[Point]] = {}
        self._described: dict[Point, tuple[Floats, float]] = {}
        self._expected: dict[Point, float] = {}
        self._errors: list[float] = []
        self._fits = self._fitted_to = 0
        self._times: KnobTrees | None = None

    def start(self, count: int) -> list[Point]:
        """Up to `count` points to begin with, of different kinds.

        Those of which the prior expects most: of many draws, and of what is near the best of them.
        Without one they are draws.
        """
        prior = self._prior
        if prior is None:
            return [self._draw() for _ in range(count)]
        found = list({self._draw(): None for _ in range(self._config.first)})
        expected = dict(zip(found, prior.expect(found).tolist(), strict=True))
        looked_from: set[Point] = set()
        for _ in range(self._config.steps):
            ranked = sorted(expected, key=expected.__getitem__)
            centres = [p for p in self._varied(ranked, count, _FIRST_ALIKE) if p not in looked_from]
            looked_from.update(centres)
            near = {p: None for centre in centres for p in self._around(centre)}
            new = [point for point in near if point not in expected]
            if not new:
                break
            expected |= zip(new, prior.expect(new).tolist(), strict=True)
        return self._varied(sorted(expected, key=expected.__getitem__), count, _FIRST_ALIKE)

    def rank(self, seen: Mapping[Point, Result], points: Sequence[Point]) -> list[int]:
        """The order of points by the times that are expected of them, fastest first.

        Args:
            seen: What was measured; as it is if none of it could be timed.
            points: Any.
        """
        if not points or not math.isfinite(_best_log(seen)):
            return list(range(len(points)))
        if self._times is None or len(seen) >= self._fitted_to * (1 + 1 / _STALE):
            self._fit_times(seen)
        asked = self._describe(points)
        assert self._times is not None
        order = np.argsort(self._times.predict(asked.features, asked.expected), kind="stable")
        return [int(index) for index in order]

    def choose(self, seen: Mapping[Point, Result], count: int) -> list[Point]:
        """Up to `count` unmeasured points, those first that take longest to build.

        Workers that build side by side then end at about the same time.

        Args:
            seen: What was measured.
            count: How many.
        """
        if not math.isfinite(_best_log(seen)):
            return [self._draw() for _ in range(count)]
        times = self._fit_times(seen)
        self._learn_errors(seen)
        costs = self._fit_costs(seen)
        judge = _Judge(self._describe, times, costs, self.error, _best_log(seen))
        near = self._look_around(seen, judge)
        drawn = {self._draw(): None for _ in range(self._config.fresh)}
        fresh = judge.best_of(point for point in drawn if point not in seen)
        from_fresh = int(self._rng.binomial(count, self._config.fresh_share))
        alike = self._config.alike * count
        most = (math.ceil(alike), math.inf, math.ceil(alike / 2))
        chosen = dict.fromkeys(self._varied(near, count - from_fresh, most))
        for point in fresh:
            if len(chosen) >= count:
                break
            chosen[point] = None
        if not chosen:
            # Everything near is measured, and so was every draw; another one may not be.
            return [self._draw()]
        self._expected = {point: judge.log_s[point] for point in chosen}
        return sorted(chosen, key=lambda point: -judge.log_cost[point])

    @property
    def error(self) -> float:
        """How far expectations were from what was measured, of late, in log seconds."""
        if len(self._errors) < _FEWEST_ERRORS:
            return _UNKNOWN_ERROR
        return float(np.clip(np.sqrt(np.mean(np.square(self._errors))), *_ERROR_RANGE))

    def _look_around(self, seen: Mapping[Point, Result], judge: _Judge) -> list[Point]:
        """Unmeasured points near measured ones, the most promising first."""
        config = self._config
        ranked = sorted((result for result in seen.values() if result.ok), key=_log_s)
        others = ranked[config.elites : max(len(ranked) // 4, config.elites + 1)]
        drawn = self._rng.permutation(len(others))[: config.elites]
        centres = [result.point for result in ranked[: config.elites]]
        centres += [others[index].point for index in drawn]
        looked_from: set[Point] = set()
        found: dict[Point, None] = {}
        best: list[Point] = []
        for _ in range(config.steps):
            looked_from.update(centres)
            for centre in centres:
                found.update((p, None) for p in self._around(centre) if p not in seen)
            best = judge.best_of(found)
            centres = [point for point in best if point not in looked_from][: config.beam]
        return best

    def _varied(self, ranked: Sequence[Point], count: int, most: Sequence[float]) -> list[Point]:
        """The first `count`, but not too many alike while there are others.

        A model that errs errs for all programs of a kind alike.

        Args:
            ranked: The most promising first.
            count: How many.
            most: How many may have the same innermost factors: of spatial axes, of reductions, of
                all.
        """
        counts = [Counter[tuple[int, ...]]() for _ in most]
        chosen: list[Point] = []
        others: list[Point] = []
        for point in ranked:
            if len(chosen) == count:
                return chosen
            kinds = self._innermost(point)
            if any(
                seen[kind] >= limit for seen, kind, limit in zip(counts, kinds, most, strict=True)
            ):
                others.append(point)
                continue
            chosen.append(point)
            for seen, kind in zip(counts, kinds, strict=True):
                seen[kind] += 1
        return (chosen + others)[:count]

    def _innermost(self, point: Point) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Its innermost factors, of spatial axes, of reductions, of both."""
        tiles = list(self._space.sketches[point.sketch].tiles())
        inner = [point.values[tile.start + tile.width - 1] for tile in tiles]
        pairs = list(zip(tiles, inner, strict=True))
        spatial = tuple(factor for tile, factor in pairs if not tile.is_reduction)
        return spatial, tuple(f for tile, f in pairs if tile.is_reduction), tuple(inner)

    def _describe(self, points: Sequence[Point]) -> _Described:
        """Remembered: measured points, and what is near the best, are asked for again and again."""
        if len(self._described) > _DESCRIPTIONS_KEPT:
            self._described.clear()
        new = [point for point in dict.fromkeys(points) if point not in self._described]
        if new:
            fresh = self._describe_anew(new)
            expected = np.zeros(len(new)) if fresh.expected is None else fresh.expected
            rows = zip(fresh.features, expected.tolist(), strict=True)
            self._described |= zip(new, rows, strict=True)
        found = [self._described[point] for point in points]
        expectations = None if self._prior is None else np.array([number for _, number in found])
        return _Described(np.stack([row for row, _ in found]), expectations)

    def _describe_anew(self, points: Sequence[Point]) -> _Described:
        knobs = self._features.of(points)
        if self._prior is None:
            return _Described(knobs, None)
        tiles = self._prior.features.of(points)
        return _Described(np.concatenate([knobs, tiles], axis=1), self._prior.of_features(tiles))

    def _around(self, point: Point) -> list[Point]:
        """Its neighbours; listing them takes milliseconds."""
        if len(self._neighbours) > _NEIGHBOURHOODS_KEPT:
            self._neighbours.clear()
        if point not in self._neighbours:
            self._neighbours[point] = self._space.neighbours(point)
        return self._neighbours[point]

    def _fit_times(self, seen: Mapping[Point, Result]) -> KnobTrees:
        """A model of log seconds. Failures are as bad as it gets.

        Every fit draws other parts of points and features, so that a wrong belief is not held for
        ever.

        Args:
            seen: What was measured; some of it could be timed.
        """
        known, worst = self._describe(list(seen)), _best_log(seen) + WORST
        self._fits, self._fitted_to = self._fits + 1, len(seen)
        logs = np.array([min(_log_s(result), worst) for result in seen.values()])
        self._times = KnobTrees(known.features, logs, self._fits, expected=known.expected)
        return self._times

    def _fit_costs(self, seen: Mapping[Point, Result]) -> KnobTrees:
        """A model of the log seconds that a candidate takes to be built, verified and timed."""
        known = self._describe(list(seen))
        costs = [max(result.phases.total_s, _QUICKEST_S) for result in seen.values()]
        return KnobTrees(known.features, np.log(np.array(costs)), self._fits, _COST_ROUNDS)

    def _learn_errors(self, seen: Mapping[Point, Result]) -> None:
        """Compare what was expected of the last points with what they turned out to be."""
        for point, expected in self._expected.items():
            result = seen.get(point)
            if result is not None and result.ok and not result.repeated:
                self._errors.append(min(_WORST_ERROR, _log_s(result) - expected))
        self._expected = {}
        self._errors = self._errors[-_ERRORS:]


class _Judge:
    """The expected improvement a second of points, each judged once.

    Jones et al., "Efficient Global Optimization of Expensive Black-Box Functions" (1998), in log
    seconds; the error is the same everywhere, for trees do not say where they know nothing.

    Attributes:
        log_s: What is expected of each judged point.
        log_cost: And of its building and timing.
    """

    def __init__(
        self,
        describe: Callable[[Sequence[Point]], _Described],
        times: KnobTrees,
        costs: KnobTrees,
        error: float,
        best: float,
    ) -> None:
        self._describe, self._times, self._costs = describe, times, costs
        self._error, self._best = error, best
        self._score: dict[Point, float] = {}
        self.log_s: dict[Point, float] = {}
        self.log_cost: dict[Point, float] = {}

    def best_of(self, points: Iterable[Point]) -> list[Point]:
        """The points in order, the most promising first."""
        points = list(points)
        new = [point for point in points if point not in self._score]
        if new:
            told = self._describe(new)
            log_s = self._times.predict(told.features, told.expected)
            log_cost = self._costs.predict(told.features)
            gain = np.log(np.maximum(self._improvement(log_s), _LEAST_IMPROVEMENT)) - log_cost
            self._score |= zip(new, gain.tolist(), strict=True)
            self.log_s |= zip(new, log_s.tolist(), strict=True)
            self.log_cost |= zip(new, log_cost.tolist(), strict=True)
        return sorted(points, key=lambda point: -self._score[point])

    def _improvement(self, log_s: Floats) -> Floats:
        """Expected, in log seconds below the best."""
        ahead = (self._best - log_s) / self._error
        improvement: Floats = self._error * (ahead * norm.cdf(ahead) + norm.pdf(ahead))
        return improvement


def _log_s(result: Result) -> float:
    """Log seconds; infinite for failures."""
    return math.log(result.estimate_s) if result.ok and result.estimate_s else math.inf


def _best_log(seen: Mapping[Point, Result]) -> float:
    return min(map(_log_s, seen.values()), default=math.inf)
