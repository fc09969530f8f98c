"""Who of several candidates is fastest, and how fast that is, over several processes.

The same code takes some percent longer on the same arguments in one process than in another, up to
a fifth if it is short (`runs/processes.py`), for memory lies elsewhere in it. The interval of one
process's samples says nothing of that, and the process in which a user runs a kernel is yet another
one. So some processes choose among the candidates, and others say how fast the chosen ones are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from schedenv.measure.result import Result, robust_estimate
from schedenv.space import UNTUNED, Point
from schedenv.tuning.finalists import Comparer, Kernel, Timing, interleave

CHOOSING = 2
REPORTING = 5
KEPT = 4
"""Candidates of each that are chosen from in the second process and in later ones."""

SLOW_S = 0.1
"""A program that takes longer is timed in one process of each kind; each would take seconds."""

_ROUNDS = 20
_KERNEL_S = 0.2
_FEWEST_SAMPLES = 4

Samples = tuple[float, ...]


@dataclass(frozen=True)
class Judged:
    """One contestant's winner.

    Attributes:
        result: Of the winner in the process that reported first; of `UNTUNED` if no candidate was
            faster than that.
        timing: What the reporting processes say.
    """

    result: Result
    timing: Timing


@dataclass(frozen=True)
class Heats:
    """What came out.

    Attributes:
        winners: One a field.
        untuned: The unscheduled program; None if it could not be timed.
        others: The timings of the points that were to be reported as well, those that have one.
        results: Every point's first result.
    """

    winners: tuple[Judged | None, ...]
    untuned: Judged | None
    others: Mapping[Point, Timing]
    results: Mapping[Point, Result]


def hold_heats(
    comparer: Comparer,
    fields: Sequence[Sequence[Point]],
    seed: int = 0,
    also: Sequence[Point] = (),
    slowdown: Callable[[], float | None] | None = None,
) -> Heats:
    """Find the fastest candidate of every contestant, and time it beside those of the others.

    Args:
        comparer: Where they run.
        fields: Each contestant's candidates. The unscheduled program is among them all.
        seed: Of the order of samples.
        also: Points that are reported whoever wins.
        slowdown: Instead of the comparer's own.
    """
    processes = _Processes(comparer, seed, slowdown or comparer.slowdown)
    chosen = _choose(processes, fields)
    points = list(dict.fromkeys([UNTUNED, *chosen, *also]))
    reported: dict[Point, list[Samples]] = {point: [] for point in points}
    for _ in range(REPORTING):
        for point, samples in processes.time(points):
            reported[point].append(samples)
        points = [point for point in points if processes.is_quick(point)]
        if not points:
            break
    timings = {point: Timing.over(taken, seed) for point, taken in reported.items() if taken}

    def judged(point: Point) -> Judged | None:
        timing = timings.get(point)
        return None if timing is None else Judged(processes.results[point], timing)

    untuned = judged(UNTUNED)
    winners = tuple(judged(point) or untuned for point in chosen)
    others = {point: timings[point] for point in also if point in timings}
    return Heats(winners, untuned, others, processes.results)


def _choose(processes: _Processes, fields: Sequence[Sequence[Point]]) -> list[Point]:
    """The fastest of each field in the geometric mean of the choosing processes."""
    logs: dict[Point, list[float]] = {}
    left = [list(field) for field in fields]
    for number in range(CHOOSING):
        entered = sorted({point for field in left for point in field})
        if not entered and number:
            break
        for point, samples in processes.time([*([] if number else [UNTUNED]), *entered]):
            logs.setdefault(point, []).append(math.log(robust_estimate(samples)))
        # Whoever failed in one process is no winner.
        complete = {point: sum(each) for point, each in logs.items() if len(each) == number + 1}
        left = [
            sorted((p for p in field if p in complete), key=complete.__getitem__)[:KEPT]
            for field in left
        ]
    (untuned_log,) = logs.get(UNTUNED, [math.inf])
    return [
        field[0] if field and sum(logs[field[0]]) < CHOOSING * untuned_log else UNTUNED
        for field in left
    ]


class _Processes:
    """Times kernels in one process after the other.

    Attributes:
        results: The first result of every point.
    """

    def __init__(self, comparer: Comparer, seed: int, slowdown: Callable[[], float | None]) -> None:
        self._comparer, self._seed, self._slowdown = comparer, seed, slowdown
        self._number = 0
        self._kernels: dict[Point, Kernel] = {}
        self.results: dict[Point, Result] = {}

    def time(self, points: Sequence[Point]) -> Iterator[tuple[Point, Samples]]:
        """Samples of each point that works, all taken in turn in one process."""
        if not self._number or self._comparer.renew():
            self._kernels = {}
        # Where processes cannot be changed, kernels that are there need not be made again.
        if any(point not in self._kernels for point in points):
            self._kernels = dict(zip(points, self._comparer.load(points), strict=True))
        self._number += 1
        kernels = [self._kernels[point] for point in points]
        budget_s = _KERNEL_S * len(points)
        seed = self._seed + self._number
        timed = interleave(kernels, _ROUNDS, budget_s, seed, self._slowdown)
        for point, (result, samples) in zip(points, timed, strict=True):
            self.results.setdefault(point, result)
            if len(samples) >= _FEWEST_SAMPLES:
                yield point, samples

    def is_quick(self, point: Point) -> bool:
        """Whether it is worth another process."""
        estimate_s = self.results[point].estimate_s
        return estimate_s is not None and estimate_s <= SLOW_S
