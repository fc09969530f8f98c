"""Descents in the order of a model, and surveys of the whole space by the same model, in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from schedenv.measure import Result
from schedenv.space import Point, SearchSpace

from .greedy_local import GreedyConfig, GreedyLocalAgent
from .survey import Survey, SurveyConfig
from .tile_prior import TilePrior, prior_of

_PATIENCE = 24
"""New programs in a row that were no better than the centre, the most promising ones first: what is
left of its neighbours is then no better either."""

_SURVEYED = 32
"""New programs in a row of a survey that were no better than the best, before it descends again."""

_BATCH = 8
_ALIKE = 0.5
_UNINFORMED = 2
"""Points of the first storm that the prior does not choose, for it may be wrong about a task."""


class TreesGreedyAgent(GreedyLocalAgent):
    """Greedy local search and a survey of the whole space (`Survey`) in turn.

    A descent ends at a local optimum, or when it was fruitless for a while. The survey that follows
    ends with a new best point, from which the next descent starts; or when it was fruitless for a
    while, and a few draws that no model has chosen then begin another part of the space.

    Args:
        space: The task's points.
        seed: Of the exploration, and of everything else random.
        prior: What is expected before anything is measured: it chooses most of the points of the
            first storm, and is what the trees correct. None for nothing.
    """

    def __init__(self, space: SearchSpace, seed: int, prior: TilePrior | None = None) -> None:
        super().__init__(space, seed, GreedyConfig())
        config = SurveyConfig() if prior is None else SurveyConfig(alike=_ALIKE)
        self._survey = Survey(space, self._rng, super()._draw, config, prior)
        # New programs since the last step down, or since the survey began.
        self._fruitless = 0
        self._surveying = False
        self._first: list[Point] = []
        self._stormed: list[Point] = []
        if prior is not None:
            self._first = self._survey.start(self._storm_left - _UNINFORMED)

    def ask(self, count: int) -> list[Point]:
        """What the descent asks for, or what the survey chooses."""
        descended = self._centre is not None and not (self._storm_left or self._queue)
        if not self._surveying and (descended or self._fruitless >= _PATIENCE):
            self._surveying, self._fruitless = True, 0
        if self._surveying:
            return self._survey.choose(self._seen, min(count, self._size(_BATCH)))
        return super().ask(count)

    def tell(self, results: Sequence[Result]) -> None:
        """Remember the results, and move on."""
        if self._surveying:
            self._tell_survey(results)
            return
        centre = self._centre
        super().tell(results)
        if self._centre is not centre:
            self._fruitless = 0
        elif centre is not None:
            self._fruitless += sum(not result.repeated for result in results)

    def _tell_survey(self, results: Sequence[Result]) -> None:
        """End the survey if it has found a better point, or none for a while."""
        before_s = self._best_s()
        self._remember(results)
        self._count_new(results)
        self._fruitless += sum(not result.repeated for result in results)
        if self._best_s() < before_s:
            self._start_at(min(self._seen.values(), key=_time_s))
        elif self._fruitless >= _SURVEYED:
            self._surveying, self._fruitless = False, 0
            self._centre, self._queue = None, []
            self._storm_left = self._config.later_storm

    def _start_at(self, result: Result) -> None:
        self._surveying, self._fruitless = False, 0
        self._descend_from(result, None)

    def _best_s(self) -> float:
        return min(map(_time_s, self._seen.values()), default=math.inf)

    def _choose_starts(self) -> None:
        """The best of a later storm, if it is worth a descent; else the best that is known."""
        stormed = [self._seen[point] for point in self._stormed if point in self._seen]
        self._stormed = []
        limit_s = self._config.worthwhile * self._best_s()
        worth = [
            r for r in stormed if r.point not in self._centres and r.ok and _time_s(r) <= limit_s
        ]
        if worth and self._centres:
            self._starts = [min(worth, key=_time_s)]
        else:
            super()._choose_starts()

    def state_dict(self) -> dict[str, Any]:
        """Where the search stands."""
        return super().state_dict() | {"surveying": self._surveying}

    def _draw(self) -> Point:
        point = self._first.pop(0) if self._first else super()._draw()
        self._stormed.append(point)
        return point

    def _rank(self) -> None:
        order = self._survey.rank(self._seen, [point for _, point in self._queue])
        self._queue = [self._queue[index] for index in order]


def _time_s(result: Result) -> float:
    """Infinite for failures."""
    return math.inf if result.estimate_s is None else result.estimate_s


class PriorGreedyAgent(TreesGreedyAgent):
    """Begins with what other tasks have taught (`TilePrior`), and corrects it by what it measures.

    Where the prior has nothing to say (no reduction is tiled, or the space is a recorded table's)
    it is `TreesGreedyAgent`.

    Args:
        space: The task's points.
        seed: Of everything random.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(space, seed, prior_of(space))
