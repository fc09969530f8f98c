"""Greedy local search: storm, then raindrop.

After Droplet Search (Canesche et al., "Explore as a Storm, Exploit as a Raindrop") with what its
published versions leave out: moves that conserve the tile products instead of lists that TVM
repairs, both directions along every coordinate, a statistical test before a move is accepted, a
memory of everything visited, and restarts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import mannwhitneyu, ttest_ind
from threadpoolctl import ThreadpoolController

from schedenv.measure import Result
from schedenv.space import FactorMove, Move, Point, SearchSpace, SetMove
from schedenv.space.draft import Drafter

from .coordinates import Coordinates
from .forecast import Forecast

_NEW_SHARE_RATE = 0.2
_LEAST_NEW_SHARE = 0.25


@dataclass(frozen=True)
class GreedyConfig:
    """Settings of the greedy local agent.

    Attributes:
        storm: Random points measured before the first descent.
        later_storm: Random points measured when every start has been descended from.
        starts: Descents after a storm, from its best points.
        drafted: Share of the random points that are drawn to fit the registers
            (`schedenv.space.draft`); the others are uniform.
        batch: New programs asked for at once, about. Few, so that a descent moves on as soon as a
            neighbour is better; the machine builds two at a time and idles more, the fewer there
            are.
        refill: Ask for so many more as lately turned out to be programs already measured (most
            neighbours, on some tasks), so that about `batch` are left to be built.
        from_default: The first storm is the space's default point alone, not `storm` random ones.
        test: Of a neighbour being faster: Mann-Whitney's, which asks nothing of the noise, or
            Student's.
        significance: Largest p-value at which a faster neighbour is accepted.
        worthwhile: A descent does not start at a point that is this many times slower than the
            best known one; below the factor at which the measurer stops timing early.
        speculate: When a batch is not full, add points one step further along its moves.
        forecast: Neighbours are asked for in the order in which a model of what was measured has
            them (`agents/forecast.py`); if not, at random.
        optimism: How many standard deviations a forecast time is believed to be too long.
    """

    storm: int = 8
    later_storm: int = 4
    starts: int = 1
    drafted: float = 0.8
    batch: int = 4
    refill: bool = True
    from_default: bool = False
    test: Literal["mann-whitney", "student"] = "mann-whitney"
    significance: float = 0.05
    worthwhile: float = 1.8
    speculate: bool = False
    forecast: bool = False
    optimism: float = 1.0


DROPLET = GreedyConfig(
    storm=1, later_storm=1, starts=1, drafted=0.0, batch=16, refill=False, from_default=True,
    test="student", worthwhile=math.inf, speculate=True,
)  # fmt: skip
"""Droplet Search as published (AutoTVM): one descent from the plainest schedule, by Student's test.

Two things differ. A step is a legal move of this space: the published ones go through lists of tile
sizes that TVM then repairs, so that many are the same program. And where the published search
ends, this one draws a random point and goes on from the best point that it has not descended from,
so that it can be compared at equal time.
"""

REGISTER_TILES = GreedyConfig(storm=32, later_storm=24, starts=3, drafted=0.0, batch=16)
"""Longer storms in larger batches, for spaces that are searched but once for a whole network."""


class GreedyLocalAgent:
    """Random exploration, then coordinate descent from the best points found.

    Args:
        space: The task's points.
        seed: Of the exploration and of the order of the neighbours.
        config: Settings.
    """

    def __init__(self, space: SearchSpace, seed: int, config: GreedyConfig | None = None) -> None:
        self._space = space
        self._config = config or GreedyConfig()
        self._rng = np.random.default_rng(seed)
        self._drafter = Drafter(space)
        self._coordinates = Coordinates(space)
        # The threads of a larger BLAS pool would spin beside the kernels that are timed.
        self._pools = ThreadpoolController() if self._config.forecast else None
        self._storm_left = self._config.storm
        self._new_share = 1.0
        self._seen: dict[Point, Result] = {}
        self._centres: set[Point] = set()
        self._starts: list[Result] = []
        self._centre: Result | None = None
        self._queue: list[tuple[Move, Point]] = []
        self._asked: dict[Point, Move] = {}
        self._asked_storm = 0

    def ask(self, count: int) -> list[Point]:
        """The rest of the storm, or unvisited neighbours of the centre."""
        self._asked, self._asked_storm = {}, 0
        if self._storm_left == 0 and not self._queue:
            self._restart()
        if self._storm_left > 0:
            self._asked_storm = min(count, self._config.batch, self._storm_left)
            if self._config.from_default and not self._seen:
                return [self._space.default()]
            return [self._draw() for _ in range(self._asked_storm)]
        count = min(count, self._size(self._config.batch))
        self._rank()
        batch, self._queue = self._queue[:count], self._queue[count:]
        if self._config.speculate:
            batch += self._further(batch, count - len(batch))
        self._asked = {point: move for move, point in batch}
        return [point for _, point in batch]

    def tell(self, results: Sequence[Result]) -> None:
        """Remember the results; move to the best neighbour that is faster beyond doubt."""
        self._remember(results)
        if self._asked_storm:
            self._storm_left -= self._asked_storm
            if self._storm_left == 0:
                self._choose_starts()
            return
        self._count_new(results)
        better = [result for result in results if self._is_improvement(result)]
        if better:
            best = min(better, key=_estimate_s)
            self._descend_from(best, self._asked[best.point])

    def state_dict(self) -> dict[str, Any]:
        """Where the search stands."""
        return {
            "seen": len(self._seen),
            "centre": str(self._centre.point) if self._centre else None,
            "storm_left": self._storm_left,
            "starts_left": [str(start.point) for start in self._starts],
        }

    def _remember(self, results: Sequence[Result]) -> None:
        self._seen |= {result.point: result for result in results}

    def _count_new(self, results: Sequence[Result]) -> None:
        """Learn how many of the points asked for turn out to be programs not measured yet."""
        if self._config.refill and results:
            new_share = sum(not result.repeated for result in results) / len(results)
            self._new_share += _NEW_SHARE_RATE * (new_share - self._new_share)

    def _size(self, new: int) -> int:
        """Points to ask for so that about `new` of them are programs not measured yet."""
        return round(new / max(self._new_share, _LEAST_NEW_SHARE))

    def _draw(self) -> Point:
        """A point of a storm."""
        if self._config.drafted and self._rng.random() < self._config.drafted:
            return self._drafter.sample(self._rng, self._seen)
        return self._space.sample(self._rng)

    def _rank(self) -> None:
        """Put the neighbours that a forecast finds promising first, if there is to be one."""
        if self._pools is None:
            return
        seconds = {p: _estimate_s(r) if r.ok else math.inf for p, r in self._seen.items()}
        with self._pools.limit(limits=1):
            forecast = Forecast.of(self._coordinates, seconds)
            if forecast is not None:
                points = [point for _, point in self._queue]
                logs = forecast.optimistic(points, self._config.optimism)
                self._queue = [self._queue[index] for index in np.argsort(logs, kind="stable")]

    def _choose_starts(self) -> None:
        """Rank what is known; descents start at the best points that were not a centre yet."""
        ranked = sorted((r for r in self._seen.values() if r.ok), key=_estimate_s)
        fresh = [result for result in ranked if result.point not in self._centres]
        limit_s = self._config.worthwhile * _estimate_s(ranked[0]) if ranked else 0.0
        self._starts = [r for r in fresh if _estimate_s(r) <= limit_s][: self._config.starts]

    def _restart(self) -> None:
        """Begin the next descent, or another storm when no start is left."""
        while self._starts:
            start = self._starts.pop(0)
            if start.point not in self._centres:
                self._descend_from(start, None)
                if self._queue:
                    return
        self._centre = None
        self._storm_left = self._config.later_storm

    def _descend_from(self, result: Result, move: Move | None) -> None:
        """Make `result` the centre; queue its unvisited neighbours in random order.

        The move that led here goes first once more: where one step along a line helped, the
        next one often does.
        """
        self._centre = result
        self._centres.add(result.point)
        moves = self._space.legal_moves(result.point)
        order = [moves[index] for index in self._rng.permutation(len(moves))]
        order.sort(key=lambda candidate: not _same_line(candidate, move))
        neighbours = [(candidate, candidate.apply(result.point)) for candidate in order]
        self._queue = [(m, point) for m, point in neighbours if point not in self._seen]

    def _further(self, batch: Sequence[tuple[Move, Point]], count: int) -> list[tuple[Move, Point]]:
        """Up to `count` unvisited points that making the batch's moves once more leads to."""
        known = self._seen.keys() | {point for _, point in batch}
        found: dict[Point, Move] = {}
        for move, point in batch:
            again = _once_more(move)
            if again is None or len(found) == count:
                continue
            if self._space.is_legal_move(point, again) and again.apply(point) not in known:
                found.setdefault(again.apply(point), again)
        return [(move, point) for point, move in found.items()]

    def _is_improvement(self, result: Result) -> bool:
        """Whether a neighbour is faster than the centre, and not by luck."""
        centre = self._centre
        if centre is None or not result.ok or result.point not in self._asked:
            return False
        if _estimate_s(result) >= _estimate_s(centre):
            return False
        test = mannwhitneyu if self._config.test == "mann-whitney" else ttest_ind
        outcome = test(result.corrected_s, centre.corrected_s, alternative="less")
        return bool(outcome.pvalue <= self._config.significance)


class DropletAgent(GreedyLocalAgent):
    """Droplet Search (`DROPLET`): for comparison with the greedy local agent.

    Args:
        space: The task's points.
        seed: Of the order of the neighbours, and of the points drawn when a descent has ended.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(space, seed, DROPLET)


class ForecastGreedyAgent(GreedyLocalAgent):
    """Greedy local search that measures the neighbours first that a model finds promising.

    Args:
        space: The task's points.
        seed: Of the exploration, and of the order of neighbours that nothing is known of.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(space, seed, GreedyConfig(forecast=True))


class RegisterTileAgent(GreedyLocalAgent):
    """Greedy local search whose first storm is drafted (`schedenv.space.draft`).

    Nothing is excluded: the descents may leave the drafted part, and later storms are uniform.

    Args:
        space: The task's points.
        seed: Of the drafts and of the order of the neighbours.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        super().__init__(space, seed, REGISTER_TILES)

    def _draw(self) -> Point:
        if self._centres:
            return super()._draw()
        return self._drafter.sample(self._rng, self._seen)


def _estimate_s(result: Result) -> float:
    assert result.estimate_s is not None
    return result.estimate_s


def _once_more(move: Move) -> Move | None:
    """The same step again, from where `move` led to; None for another sketch."""
    if isinstance(move, FactorMove):
        return move
    if isinstance(move, SetMove):
        return SetMove(move.knob, move.slot, move.new, 2 * move.new - move.old)
    return None


def _same_line(move: Move, previous: Move | None) -> bool:
    """Whether `move` goes on in the direction of `previous`."""
    if isinstance(move, FactorMove) and isinstance(previous, FactorMove):
        return (move.source, move.destination) == (previous.source, previous.destination)
    if isinstance(move, SetMove) and isinstance(previous, SetMove):
        return move.slot == previous.slot and (move.new > move.old) == (previous.new > previous.old)
    return False
