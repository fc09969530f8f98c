"""The finalists of all contestants on a task, timed against each other in a fresh process.

As in `schedenv.tuning.finalists`: samples are taken in turn, in random order; the first half of
the rounds picks each attempt's winner, the second half, which the choice has not seen, says how
fast it is. What ranks contestants is this, not what each of them believed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from schedenv.comparison.attempts import Attempt, Confirmed, Finals
from schedenv.errors import MachineError
from schedenv.hardware import Hardware
from schedenv.measure.local import LocalMeasurer
from schedenv.measure.result import robust_estimate
from schedenv.space import UNTUNED, Point
from schedenv.tasks import Task
from schedenv.tuning.finalists import FINALISTS, ROUNDS, Comparer, Timing, interleave

MOST_KERNELS = 64
"""Kernels held ready at once; attempts with more finalists together are timed in several groups."""

_KERNEL_S = 0.8
"""Seconds of sampling for each kernel of a group; slow ones get fewer samples."""

_FEWEST_SAMPLES = 4

Samples = dict[Point, tuple[float, ...]]
Open = Callable[[int], AbstractContextManager[Comparer]]


def is_current(finals: Finals | None, attempts: Sequence[Attempt]) -> bool:
    """Whether finals hold exactly these attempts of their task."""
    if finals is None:
        return False
    judged = {(result.agent, result.seed) for result in finals.results}
    return judged == {(attempt.agent, attempt.seed) for attempt in attempts}


def confirm_all(
    task: Task,
    hardware: Hardware,
    attempts: Sequence[Attempt],
    on_group: Callable[[int], None] = lambda _: None,
    open_comparer: Open | None = None,
) -> Finals:
    """Time the finalists of all attempts on a task, and the untuned program, together.

    More than `MOST_KERNELS` are timed in several groups; the fastest finalist of all by its
    search's estimate is in every group, and what it takes there puts the groups to one scale.

    Args:
        task: What they compute.
        hardware: What they run on.
        attempts: All of the task; one that failed or found nothing gets the untuned program.
        on_group: Told how many kernels a group has, before it is timed.
        open_comparer: Where they run; None for this machine.

    Raises:
        MachineError: Not even the untuned program can be timed.
    """

    def open_local(inputs_seed: int) -> LocalMeasurer:
        return LocalMeasurer(task, hardware, workers=1, seed=inputs_seed)

    anchor = _anchor(attempts)
    first: Samples = {}
    slowdowns: list[float] = []
    results: list[Confirmed] = []
    for seed, group in enumerate(_groups(attempts)):
        finalists = {point for attempt in group for point in _finalists(attempt, group)}
        points = sorted(finalists | ({anchor} if anchor is not None else set()))
        on_group(1 + len(points))
        samples, told = _sample(open_comparer or open_local, [UNTUNED, *points], seed)
        slowdowns += told
        if not _timed(UNTUNED, samples):
            raise MachineError(
                f"the untuned program of {task.name} cannot be timed; run: schedenv doctor"
            )
        first = first or samples
        factor = _factor(anchor, first, samples)
        results += [_judge(attempt, group, samples, factor) for attempt in group]
    untuned_s = _second_half(first[UNTUNED]).latency_s
    slowdown = robust_estimate(slowdowns) if slowdowns else None
    return Finals(task.name, untuned_s, tuple(results), slowdown)


def _factor(anchor: Point | None, first: Samples, samples: Samples) -> float:
    """What times of a group are multiplied by to be those of the first group."""
    for point in (anchor, UNTUNED):
        if point is not None and _timed(point, first) and _timed(point, samples):
            return robust_estimate(first[point]) / robust_estimate(samples[point])
    return 1.0


def _timed(point: Point, samples: Samples) -> bool:
    return len(samples.get(point, ())) >= _FEWEST_SAMPLES


def _judge(
    attempt: Attempt, group: Sequence[Attempt], samples: Samples, factor: float
) -> Confirmed:
    """The winner of an attempt's finalists and of the untuned program."""
    entered = [UNTUNED, *_finalists(attempt, group)]
    timed = [point for point in entered if _timed(point, samples)]
    winner = min(timed, key=lambda point: robust_estimate(_first_half(samples[point])))
    timing = _second_half(samples[winner])
    return Confirmed(
        attempt.agent,
        attempt.seed,
        None if winner == UNTUNED else str(winner),
        timing.latency_s * factor,
        timing.low_s * factor,
        timing.high_s * factor,
    )


def _groups(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """Attempts in groups that can be held ready at once, whole seeds together."""
    groups: list[list[Attempt]] = [[]]
    for seed in sorted({attempt.seed for attempt in attempts}):
        block = [attempt for attempt in attempts if attempt.seed == seed]
        if groups[-1] and len(groups[-1]) + len(block) > MOST_KERNELS - 2:
            groups.append([])
        groups[-1] += block
    return groups


def _finalists(attempt: Attempt, group: Sequence[Attempt]) -> list[Point]:
    """The attempt's best points: as many of each as the group can hold, four at most."""
    each = max(1, min(FINALISTS, (MOST_KERNELS - 2) // len(group)))
    return [Point.parse(text) for text in attempt.finalists[:each]]


def _anchor(attempts: Sequence[Attempt]) -> Point | None:
    found = [
        (attempt.curve[-1][2], Point.parse(attempt.finalists[0]))
        for attempt in attempts
        if attempt.curve and attempt.finalists
    ]
    return min(found)[1] if found else None


def _sample(open_comparer: Open, points: Sequence[Point], seed: int) -> tuple[Samples, list[float]]:
    """Samples of each point, and the machine's slowdowns meanwhile."""
    slowdowns: list[float] = []

    def slowdown() -> float | None:
        now = comparer.slowdown()
        slowdowns.extend(() if now is None else (now,))
        return now

    # Other inputs than in any search: a kernel that is right for those alone is caught.
    with open_comparer(2**20 + seed) as comparer:
        kernels = comparer.load(points)
        timed = interleave(kernels, ROUNDS, _KERNEL_S * len(points), seed, slowdown)
    return {result.point: samples for result, samples in timed}, slowdowns


def _first_half(samples_s: Sequence[float]) -> Sequence[float]:
    return samples_s[: len(samples_s) // 2]


def _second_half(samples_s: Sequence[float]) -> Timing:
    return Timing.of(samples_s[len(samples_s) // 2 :])
